#!/usr/bin/env bash
# Builds the Helm that we check the chart with, once, and prints the path of its program.
set -euo pipefail
cd "$(dirname "$0")"
version=$(sed -n 's|.*helm.sh/helm/v4 v\([0-9.]*\).*|\1|p' helm/go.mod)
export CGO_ENABLED=0
echo "$(./go.sh helm "-X helm.sh/helm/v4/internal/version.version=v$version")/helm"

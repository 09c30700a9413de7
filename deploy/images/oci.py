"""Images FROM scratch: executables and exactly the shared libraries that they need, without a daemon.

The same files give the same bytes: names are sorted, times are 0, and layers are not compressed,
because what a compressor writes depends on its version.
"""
import hashlib, io, json, os, re, subprocess, tarfile, tempfile

# A user that owns nothing; a number, so that a kubelet can see that it is not root.
NOBODY = 65532
# What Go calls a machine, and where Debian puts libraries for it, here and for cross compilers.
MACHINES = {
    "x86_64-unknown-linux-gnu": ("amd64", "x86_64-linux-gnu"),
    "aarch64-unknown-linux-gnu": ("arm64", "aarch64-linux-gnu"),
}


class Libraries:
    """Finds the libraries of executables, as their loader would, without running them."""

    def __init__(self, target, roots=()):
        self.machine, triplet = MACHINES[target]
        folders = [f"/lib/{triplet}", f"/usr/lib/{triplet}"]
        self.folders = [root + folder for root in roots for folder in folders]
        self.folders += [*folders, f"/usr/{triplet}/lib", "/lib64", "/lib"]

    def of(self, files):
        """Where each needed library has to be, and where it is here."""
        found, seen, waiting = {}, set(), list(files)
        while waiting:
            file = waiting.pop()
            if file in seen:
                continue
            seen.add(file)
            loader, names = self._needs(file)
            if loader:
                found[loader] = self._find(os.path.basename(loader), file)
            for name in names:
                # The loader itself is also named as a library; it has its place already.
                if not any(os.path.basename(place) == name for place in found):
                    found[f"/lib/{name}"] = self._find(name, file)
            waiting += found.values()
        return found

    def _find(self, name, user):
        for folder in self.folders:
            if os.path.exists(f"{folder}/{name}"):
                return f"{folder}/{name}"
        raise SystemExit(f"{user} needs {name}, which is in none of {', '.join(self.folders)}")

    @staticmethod
    def _needs(file):
        said = _tool("readelf", "--wide", "--dynamic", "--program-headers", file)
        loader = re.search(r"program interpreter: (\S+)\]", said)
        return loader and loader[1], re.findall(r"\(NEEDED\).*\[(.+)\]", said)


def layer(files, folders=()):
    """A layer with `files` (place: file here), and the folders of nobody and of everybody."""
    out = io.BytesIO()
    parents = {parent for place in [*files, *folders] for parent in _parents(place)}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for place in sorted(parents | set(folders) | set(files)):
            entry = tarfile.TarInfo(place.lstrip("/"))
            if place in files:
                content = _content(files[place])
                entry.mode, entry.size = 0o755, len(content)
                tar.addfile(entry, io.BytesIO(content))
                continue
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            if place == "/tmp":
                entry.mode = 0o1777
            elif place in folders:
                entry.uid = entry.gid = NOBODY
            tar.addfile(entry)
    return out.getvalue()


def _parents(place):
    while (place := os.path.dirname(place)) != "/":
        yield place


def _content(file):
    """A file as it is shipped: without debug information, which is most of a debug build."""
    sections = _tool("readelf", "--wide", "--section-headers", file)
    with tempfile.NamedTemporaryFile() as stripped:
        if " .debug_info " in sections:
            _tool("objcopy", "--strip-debug", file, stripped.name)
            file = stripped.name
        with open(file, "rb") as opened:
            return opened.read()


def _tool(*command):
    """What a program of the binutils says."""
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}).stdout


class Archive:
    """An OCI archive with images, to be written at once; what they share is in it once."""

    def __init__(self):
        self.blobs, self.manifests = {}, []

    def add(self, name, machine, layers, entrypoint, user=NOBODY):
        """An image called `name`, with its registry and tag."""
        kinds = "application/vnd.oci.image"
        blobs = [self._blob(each) for each in layers]
        config = self._json({
            "architecture": machine, "os": "linux",
            "config": {
                "Entrypoint": entrypoint, "User": f"{user}:{user}", "WorkingDir": "/",
                "Env": ["PATH=/usr/bin:/usr/sbin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [digest for digest, _ in blobs]},
        })
        manifest = self._json({
            "schemaVersion": 2, "mediaType": f"{kinds}.manifest.v1+json",
            "config": _descriptor(f"{kinds}.config.v1+json", config),
            "layers": [_descriptor(f"{kinds}.layer.v1.tar", each) for each in blobs],
        })
        described = _descriptor(f"{kinds}.manifest.v1+json", manifest)
        described["platform"] = {"architecture": machine, "os": "linux"}
        described["annotations"] = {
            "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2],
        }
        self.manifests.append(described)
        return manifest[0]

    def write(self, path):
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": self.manifests}
        files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": _encoded(index)}
        files |= {f"blobs/{digest.replace(':', '/')}": blob for digest, blob in self.blobs.items()}
        with tarfile.open(path, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name in sorted(files):
                entry = tarfile.TarInfo(name)
                entry.mode, entry.size = 0o644, len(files[name])
                tar.addfile(entry, io.BytesIO(files[name]))

    def _blob(self, content):
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return digest, len(content)

    def _json(self, value):
        return self._blob(_encoded(value))


def _encoded(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _descriptor(kind, blob):
    return {"mediaType": kind, "digest": blob[0], "size": blob[1]}

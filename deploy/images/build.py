#!/usr/bin/env python3
"""Builds the images of Atoll from programs that are built already, as an OCI archive or as a folder.

    deploy/images/build.py --programs target/release --envoy .tools/envoy-1.40.0/envoy atoll.tar
    ctr --namespace k8s.io images import atoll.tar

prints the name and digest of each image. The same programs give the same digests.
"""
import argparse, functools, os, shutil

import oci

# What each image has besides the libraries; the first is what it runs.
IMAGES = {
    # The command line is beside the control planes for `kubectl exec`: there it is the administrator.
    "global-cp": ("global-cp", "atoll"),
    "zone-cp": ("zone-cp", "atoll"),
    "sidecar": ("sidecar", "envoy"),
    "zone-ingress": ("zone-ingress", "envoy"),
    # `atoll install transparent-proxy` has `nft` do the rules of a pod, and `ip` give it an address.
    "atoll": ("atoll", "nft", "ip"),
}
# Where a control plane keeps its data; the only place beside /tmp that its user can write.
DATA = "/var/lib/atoll"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="the archive; with --folder, a folder that gets one for each image")
    parser.add_argument("images", nargs="*", help=f"of {', '.join(IMAGES)}, or NAME=FILE,FILE for any other executables; all of ours unless told")
    parser.add_argument("--programs", default="target/release", help="the folder of our programs")
    parser.add_argument("--envoy", default="envoy", help="the Envoy of sidecar and zone-ingress")
    parser.add_argument("--nft", default="nft", help="the nft of atoll")
    parser.add_argument("--ip", default="ip", help="the ip of atoll")
    parser.add_argument("--root", action="append", default=[], help="another root folder with libraries, looked at first")
    parser.add_argument("--target", default="x86_64-unknown-linux-gnu", choices=oci.MACHINES)
    parser.add_argument("--registry", default="localhost/atoll", help="what stands before the names of images")
    parser.add_argument("--tag", default="latest")
    parser.add_argument("--folder", action="store_true", help="write what is in the images, for a Dockerfile")
    return parser.parse_args()


def found(name, given):
    """The file of an executable; where it is not told, PATH knows."""
    if name in ("envoy", "nft", "ip"):
        given_path = getattr(given, name)
        path = given_path if "/" in given_path else shutil.which(given_path, path=os.environ["PATH"] + ":/usr/sbin")
    else:
        path = os.path.join(given.programs, name)
    if not path or not os.path.isfile(path):
        raise SystemExit(f"no {name} at {path}: build it first, or see --help")
    return path


def contents(image, given):
    """Name, and files (place in the image: file here) of one image."""
    name, _, files = image.partition("=")
    if files:
        return name, {f"/usr/bin/{os.path.basename(file)}": file for file in files.split(",")}
    if name not in IMAGES:
        raise SystemExit(f"there is no image {name}: {', '.join(IMAGES)}")
    return name, {f"/usr/bin/{each}": found(each, given) for each in IMAGES[name]}


def write_folder(root, files):
    for place, content in files.items():
        os.makedirs(os.path.dirname(root + place), exist_ok=True)
        shutil.copyfile(content, root + place)
        os.chmod(root + place, 0o755)
    os.makedirs(f"{root}/tmp", exist_ok=True)
    os.chmod(f"{root}/tmp", 0o1777)
    os.makedirs(root + DATA, exist_ok=True)
    os.chown(root + DATA, oci.NOBODY, oci.NOBODY)


def main():
    given = arguments()
    finder = oci.Libraries(given.target, given.root)
    images = [contents(image, given) for image in given.images or IMAGES]
    if given.folder:
        for name, files in images:
            write_folder(f"{given.out}/{name}", files | finder.of(files.values()))
        return
    archive = oci.Archive()
    # One layer for each file: an Envoy is in an archive, and on a node, once.
    single = functools.cache(lambda place, file: oci.layer({place: file}))
    for name, files in images:
        layers = [oci.layer(finder.of(files.values()), ("/tmp", DATA))]
        layers += [single(*each) for each in reversed(files.items())]
        full = f"{given.registry}/{name}:{given.tag}"
        print(full, archive.add(full, finder.machine, layers, [next(iter(files))]))
    archive.write(given.out)


if __name__ == "__main__":
    main()

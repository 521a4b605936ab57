"""Three real devices change a folder at random, apart and together; then all must show, and the reader extract, the same.

    .venv/bin/python stress.py path/to/ouisync SEED ROUNDS

Everything is made in a temporary directory, which is kept when something differs.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

NAMES = [b"a", b"b.txt", "\u00e9".encode() * 126 + b".t", b"not \xff UTF-8", b".hidden.tar.gz"]
MEMBERS = ["Alice", "Bob", "Zo\u00eb: x/y"]


class Device:
    def __init__(self, program, base, name):
        self.program, self.files = program, os.path.join(base, name[:3], "files")
        self.home = os.path.join(base, name[:3], "home")
        os.makedirs(self.files)
        serve = [program, "--home", self.home, "serve", "--listen", "127.0.0.1:0", "--no-lan", "--device-name", name]
        log = open(os.path.join(base, name[:3], "log"), "wb")
        self.process = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdout.readline() == b"ready\n"

    def run(self, *arguments):
        command = [self.program, "--home", self.home, "--json", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{self.home}: {arguments}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def extract(self, target):
        shutil.rmtree(target, ignore_errors=True)
        folders = os.path.join(self.home, "folders")
        store = os.path.join(folders, os.listdir(folders)[0])
        command = [sys.executable, "-m", "ouisync_reader", store, target, "--home", self.home]
        done = subprocess.run(command, cwd=os.path.dirname(os.path.abspath(__file__)), capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"the reader: {done.stdout}{done.stderr}")


def picture(directory):
    """What is in a directory: bytes, right to execute and time of files, targets of links."""
    shown, directory = {}, os.fsencode(directory)
    for above, directories, files in os.walk(directory):
        for name in directories + files:
            path = os.path.join(above, name)
            status = os.lstat(path)
            if os.path.islink(path):
                shown[os.path.relpath(path, directory)] = "link", os.readlink(path)
            elif os.path.isdir(path):
                shown[os.path.relpath(path, directory)] = ("directory",)
            else:
                with open(path, "rb") as file:
                    content = file.read()
                shown[os.path.relpath(path, directory)] = content, status.st_mode & 0o100, status.st_mtime_ns
    return shown


def any_path(chance, directory, directories, files):
    found = []
    for above, inner, leaves in os.walk(os.fsencode(directory)):
        found += [os.path.join(above, name) for name in inner * directories + leaves * files]
    return chance.choice(sorted(found)) if found else None


def change(chance, directory):
    into = any_path(chance, directory, True, False) if chance.random() < 0.6 else None
    place = os.path.join(into or os.fsencode(directory), chance.choice(NAMES))
    what = chance.randrange(9)
    try:
        if what < 3 and not os.path.islink(place):
            contents = [b"", b"same", b"x%d" % chance.randrange(100), chance.randbytes(6000), b"zip" * 30000]
            with open(place, "wb") as file:
                file.write(chance.choice(contents))
        elif what == 3:
            os.mkdir(place)
        elif what == 4:
            os.symlink(chance.choice(["q", "../w", "/etc"]), place)
        elif what == 5:
            path = any_path(chance, directory, True, True)
            if path and not os.path.lexists(place):
                os.rename(path, place)
        elif what == 6:
            os.unlink(any_path(chance, directory, False, True) or place)
        elif what == 7 and chance.random() < 0.5:
            shutil.rmtree(any_path(chance, directory, True, False) or place)
        elif what == 8:
            path = any_path(chance, directory, False, True)
            if path and not os.path.islink(path):
                os.chmod(path, chance.choice([0o644, 0o755]))
    except OSError:
        pass


def settle(devices):
    for _ in range(300):
        for device in devices:
            device.run("wait", "Folder", "--timeout", "120")
        shown = [picture(device.files) for device in devices]
        if all(other == shown[0] for other in shown):
            return shown[0]
        time.sleep(0.2)
    raise SystemExit("the devices don't come to show the same")


def main():
    program, seed, rounds = os.path.abspath(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    chance, base = random.Random(seed), tempfile.mkdtemp(prefix="ouisync-stress-")
    devices = []
    try:
        devices += [Device(program, base, name) for name in MEMBERS]
        devices[0].run("folder", "create", "Folder", "--path", devices[0].files)
        for device in devices[1:]:
            link = devices[0].run("invite", "Folder", "--role", "writer")["link"]
            device.run("join", link, "--path", device.files, "--name", "Folder")
        settle(devices)
        for number in range(rounds):
            for device in devices:
                device.run("pause", "Folder")
            for device in devices:
                for _ in range(chance.randrange(1, 14)):
                    change(chance, device.files)
            time.sleep(2.5)
            for device in devices:
                device.run("resume", "Folder")
            wanted = settle(devices)
            target = os.path.join(base, "extracted")
            for device in devices:
                device.extract(target)
                found = picture(target)
                for path in sorted(set(wanted) | set(found)):
                    if wanted.get(path) != found.get(path):
                        raise SystemExit(f"{base}: {path!r}: {str(wanted.get(path))[:99]}, and extracted {str(found.get(path))[:99]}")
            print(f"seed {seed}, round {number}: {len(wanted)} entries", flush=True)
        shutil.rmtree(base)
    finally:
        for device in devices:
            device.process.terminate()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The part of the Hugging Face Hub that an upload talks to, on the local machine.

    hub_server.py DIRECTORY TOKEN

Prints its address, then serves until it is ended. It speaks what huggingface_hub 2.4 sends for create_repo,
create_branch and upload_folder: create, preupload, the LFS batch, the upload of each object, verify and commit. A
repository is DIRECTORY/USER/NAME/BRANCH with the files of its last commit; the commits are lines of DIRECTORY/log.
Whoever has another token is refused; an object that is not what its hash says is refused; one that is there already
is not asked for.
"""

import base64
import hashlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

# What the Hub keeps in git itself; all else, and all that is larger, is LFS.
REGULAR = (".json", ".txt", ".md", ".jinja", ".py")
REGULAR_MAX = 10 << 20


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, directory, token):
        super().__init__(("127.0.0.1", 0), Request)
        self.directory, self.token, self.lock = directory, token, threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"
        os.makedirs(self.path("objects"), exist_ok=True)

    def path(self, *names):
        if any(name in ("", ".", "..") for part in names for name in part.split("/")):
            raise ValueError(f"no path: {names}")
        return os.path.join(self.directory, *names)

    def log(self, record):
        with self.lock, open(self.path("log"), "a", encoding="utf-8") as log:
            log.write(json.dumps(record) + "\n")


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *arguments):
        """The log has what matters."""

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, status, document=None, **headers):
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def allowed(self):
        if self.headers.get("Authorization") == f"Bearer {self.server.token}":
            return True
        self.answer(401, {"error": "Invalid credentials"})
        return False

    def do_POST(self):
        body, parts = self.body(), [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]
        if not self.allowed():
            return
        match parts:
            case ["api", "repos", "create"]:
                self.create(json.loads(body))
            case ["api", "validate-yaml"]:
                self.answer(200, {"errors": [], "warnings": []})
            case ["api", "models", user, name, "branch", branch]:
                os.makedirs(self.server.path(user, name, branch), exist_ok=True)
                self.answer(200, {})
            case ["api", "models", user, name, "preupload", branch]:
                self.preupload(json.loads(body), os.path.isdir(self.server.path(user, name, branch)))
            case [user, name, "info", "lfs", "objects", "batch"] if name.endswith(".git"):
                self.batch(json.loads(body))
            case ["verify"]:
                found = json.loads(body)
                there = os.path.getsize(self.server.path("objects", found["oid"])) == found["size"]
                self.answer(200 if there else 422, {})
            case ["api", "models", user, name, "commit", branch]:
                self.commit([json.loads(line) for line in body.splitlines() if line], user, name, branch)
            case _:
                self.answer(404, {"error": f"{self.path} is not spoken here"})

    def do_PUT(self):
        """Without a token: the address that the batch gave is the permission."""
        body, oid = self.body(), self.path.rsplit("/", 1)[-1]
        if hashlib.sha256(body).hexdigest() != oid:
            self.answer(400, {"error": "these bytes have another hash"})
            return
        with open(self.server.path("objects", oid), "wb") as file:
            file.write(body)
        self.server.log({"uploaded": oid, "size": len(body)})
        self.answer(200)

    def do_GET(self):
        if self.allowed():
            self.answer(404, {"error": f"{self.path} is not spoken here"})

    def create(self, asked):
        user, _, name = asked["name"].rpartition("/")
        user = asked.get("organization") or user or "tester"
        path = self.server.path(user, name, "main")
        if os.path.isdir(path):
            self.answer(409, {"error": "You already created this model repo", "url": f"{self.server.url}/{user}/{name}"})
            return
        os.makedirs(path)
        self.server.log({"created": f"{user}/{name}", "private": asked.get("private")})
        self.answer(200, {"url": f"{self.server.url}/{user}/{name}", "name": f"{user}/{name}"})

    def preupload(self, asked, there):
        if not there:
            self.answer(404, {"error": "Revision not found"}, X_Error_Code="RevisionNotFound")
            return
        files = []
        for file in asked["files"]:
            base64.b64decode(file["sample"], validate=True)
            regular = file["path"].endswith(REGULAR) and file["size"] <= REGULAR_MAX
            mode = "regular" if regular else "lfs"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None})
        self.answer(200, {"files": files})

    def batch(self, asked):
        objects = []
        for wanted in asked["objects"]:
            found = {"oid": wanted["oid"], "size": wanted["size"]}
            if not os.path.exists(self.server.path("objects", wanted["oid"])):
                url = f"{self.server.url}/upload/{wanted['oid']}"
                verify = {"href": f"{self.server.url}/verify", "header": {"Authorization": f"Bearer {self.server.token}"}}
                found["actions"] = {"upload": {"href": url}, "verify": verify}
            objects.append(found)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def commit(self, lines, user, name, branch):
        target, files, header = self.server.path(user, name, branch), {}, {}
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    header = value
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    with open(self.server.path("objects", value["oid"]), "rb") as file:
                        files[value["path"]] = file.read()
        for path, content in files.items():
            place = self.server.path(user, name, branch, path)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "wb") as file:
                file.write(content)
        oid = hashlib.sha1(repr(sorted(files)).encode() + target.encode()).hexdigest()
        self.server.log({"commit": header.get("summary"), "repository": f"{user}/{name}", "files": sorted(files)})
        self.answer(200, {"commitUrl": f"{self.server.url}/{user}/{name}/commit/{oid}", "commitOid": oid})


def main():
    hub = Hub(sys.argv[1], sys.argv[2])
    print(hub.url, flush=True)
    hub.serve_forever()


if __name__ == "__main__":
    main()

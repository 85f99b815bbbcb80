"""A Hugging Face Hub on loopback: what timm, transformers and huggingface_hub ask of it, over HTTP, from memory."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_loopback"
ORGANIZATION = "ours"  # TOKEN may write there and nowhere else
LFS_SUFFIXES = (".safetensors", ".bin", ".pth", ".png")


@dataclass(frozen=True)
class Reply:
    """A response; `headers` may belie `body`."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def reply_json(value, status=200) -> Reply:
    return Reply(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


def error(status: int, code: str, message: str) -> Reply:
    return replace(reply_json({"error": message}, status), headers={"X-Error-Code": code, "X-Error-Message": message})


@dataclass(frozen=True)
class Blob:
    """A file in a commit."""

    data: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        if self.lfs:
            return hashlib.sha256(self.data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


class Repo:
    """Commits, each a whole tree, and the names that point at them."""

    def __init__(self, private: bool = False) -> None:
        self.private = private
        self.commits: dict[str, dict[str, Blob]] = {}
        self.refs: dict[str, str] = {}
        self.commit({})

    def commit(self, tree: dict[str, Blob], ref: str = "main") -> str:
        names = sorted((path, blob.oid) for path, blob in tree.items())
        sha = hashlib.sha1(repr((len(self.commits), names)).encode()).hexdigest()
        self.commits[sha] = dict(tree)
        self.refs[ref] = sha
        return sha

    def find(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


class HubServer:
    """The server, answering on a thread from `start` to `stop`.

    `log` holds (method, path) of every request. `damage` maps a path's end to a function that spoils the reply
    to a GET, and to a HEAD if it is listed in `damage_head`.
    """

    def __init__(self) -> None:
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.http.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.reset()

    def reset(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.log: list[tuple[str, str]] = []
        self.damage: dict[str, Callable[[Reply], Reply]] = {}
        self.damage_head: set[str] = set()

    def start(self) -> None:
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def add(self, repo: str, files: dict[str, bytes]) -> None:
        """Commit files to the main branch, of a new repository if need be."""
        target = self.repos.setdefault(repo, Repo())
        blobs = {path: Blob(data, path.endswith(LFS_SUFFIXES)) for path, data in files.items()}
        target.commit({**target.commits[target.refs["main"]], **blobs})

    def answer(self, method: str, path: str, query: str, headers, body: bytes) -> Reply:
        self.log.append((method, path))
        for pattern, route in ROUTES:
            match = re.fullmatch(pattern, f"{method} {path}")
            if match:
                request = Request(method, query, headers.get("Authorization", ""), body)
                reply = route(self, request, **{key: unquote(value) for key, value in match.groupdict().items()})
                break
        else:
            return error(404, "RouteNotFound", f"the loopback Hub does not know {method} {path}")
        for end, spoil in self.damage.items():
            if path.endswith(end) and (method == "GET" or end in self.damage_head):
                reply = spoil(reply)
        return reply


@dataclass(frozen=True)
class Request:
    method: str
    query: str
    authorization: str
    body: bytes

    @property
    def may_read_private(self) -> bool:
        return self.authorization == f"Bearer {TOKEN}"

    @property
    def json(self):
        return json.loads(self.body)

    def refuse_write(self, repo: str) -> Reply | None:
        if not self.authorization:
            return error(401, "", "Invalid username or password.")
        if not self.may_read_private or not repo.startswith(f"{ORGANIZATION}/"):
            return error(403, "", f"you have no write rights to {repo}")
        return None


def _tree(hub: HubServer, request: Request, repo: str, revision: str):
    """(repository, commit, tree), or the reply that says what is missing."""
    found = hub.repos.get(repo)
    if found is None or (found.private and not request.may_read_private):
        return error(404 if request.authorization else 401, "RepoNotFound", "Repository not found")
    sha = found.find(revision)
    if sha is None:
        return error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return found, sha, found.commits[sha]


def resolve(hub: HubServer, request: Request, repo: str, revision: str, file: str) -> Reply:
    found = _tree(hub, request, repo, revision)
    if isinstance(found, Reply):
        return found
    _, sha, tree = found
    if file not in tree:
        missing = error(404, "EntryNotFound", "Entry not found")
        return replace(missing, headers={**missing.headers, "X-Repo-Commit": sha})
    blob = tree[file]
    headers = {"X-Repo-Commit": sha, "ETag": f'"{blob.oid}"', "Accept-Ranges": "bytes"}
    if blob.lfs:
        headers |= {"X-Linked-Etag": f'"{blob.oid}"', "X-Linked-Size": str(len(blob.data))}
    return Reply(200, headers, blob.data)


def revision_info(hub: HubServer, request: Request, repo: str, revision: str = "main") -> Reply:
    found = _tree(hub, request, repo, revision)
    if isinstance(found, Reply):
        return found
    target, sha, tree = found
    siblings = [{"rfilename": path} for path in sorted(tree)]
    return reply_json({"id": repo, "modelId": repo, "sha": sha, "private": target.private, "siblings": siblings})


def tree_listing(hub: HubServer, request: Request, repo: str, revision: str) -> Reply:
    found = _tree(hub, request, repo, revision)
    if isinstance(found, Reply):
        return found
    rows = []
    for path, blob in sorted(found[2].items()):
        row = {"type": "file", "path": path, "size": len(blob.data), "oid": Blob(blob.data, False).oid}
        if blob.lfs:
            row["lfs"] = {"oid": blob.oid, "size": len(blob.data), "pointerSize": 134}
        rows.append(row)
    return reply_json(rows)


def create_repo(hub: HubServer, request: Request) -> Reply:
    name = f"{request.json.get('organization') or ORGANIZATION}/{request.json['name']}"
    refusal = request.refuse_write(name)
    if refusal:
        return refusal
    if name in hub.repos:
        return reply_json({"error": "You already created this model repo", "url": f"{hub.url}/{name}"}, 409)
    hub.repos[name] = Repo(private=request.json.get("visibility") == "private" or bool(request.json.get("private")))
    return reply_json({"url": f"{hub.url}/{name}", "name": name})


def validate_yaml(hub: HubServer, request: Request) -> Reply:
    front = re.match(r"---\n(.*?)\n---\n", request.json["content"], re.DOTALL)
    if not front:
        return reply_json({"errors": [{"message": "no metadata"}], "warnings": []}, 400)
    return reply_json({"errors": [], "warnings": []})


def preupload(hub: HubServer, request: Request, repo: str, revision: str) -> Reply:
    refusal = request.refuse_write(repo)
    found = refusal or _tree(hub, request, repo, revision)
    if isinstance(found, Reply):
        return found
    files = []
    for file in request.json["files"]:
        mode = "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"
        present = found[2].get(file["path"])
        row = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
        files.append({**row, "oid": present.oid} if present else row)
    return reply_json({"files": files})


def lfs_batch(hub: HubServer, request: Request, repo: str) -> Reply:
    refusal = request.refuse_write(repo)
    if refusal:
        return refusal
    rows = []
    for item in request.json["objects"]:
        row = {"oid": item["oid"], "size": item["size"]}
        if item["oid"] not in hub.lfs:
            row["actions"] = {"upload": {"href": f"{hub.url}/lfs/{item['oid']}", "header": {}}}
        rows.append(row)
    return reply_json({"transfer": "basic", "objects": rows})


def lfs_put(hub: HubServer, request: Request, oid: str) -> Reply:
    if hashlib.sha256(request.body).hexdigest() != oid:
        return error(400, "", "the content is not the announced one")
    hub.lfs[oid] = request.body
    return Reply()


def commit(hub: HubServer, request: Request, repo: str, revision: str) -> Reply:
    refusal = request.refuse_write(repo)
    found = refusal or _tree(hub, request, repo, revision)
    if isinstance(found, Reply):
        return found
    target, parent, tree = found
    new = dict(tree)
    for line in request.body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "file":
            new[value["path"]] = Blob(base64.b64decode(value["content"]), False)
        elif item["key"] == "lfsFile":
            new[value["path"]] = Blob(hub.lfs[value["oid"]], True)
        elif item["key"] == "deletedFile":
            del new[value["path"]]
        elif item["key"] == "header" and value.get("parentCommit", parent) != parent:
            return error(412, "", "a commit has happened since")
    pulls = sum(ref.startswith("refs/pr/") for ref in target.refs)
    as_pull = "create_pr=1" in request.query
    sha = target.commit(new, f"refs/pr/{pulls + 1}" if as_pull else revision)
    made = {"commitUrl": f"{hub.url}/{repo}/commit/{sha}", "commitOid": sha, "success": True}
    return reply_json({**made, "pullRequestUrl": f"{hub.url}/{repo}/discussions/{pulls + 1}"} if as_pull else made)


def create_branch(hub: HubServer, request: Request, repo: str, branch: str) -> Reply:
    refusal = request.refuse_write(repo)
    found = refusal or _tree(hub, request, repo, request.json.get("startingPoint") or "main")
    if isinstance(found, Reply):
        return found
    if branch in found[0].refs:
        return reply_json({"error": f"Reference already exists: {branch}"}, 409)
    found[0].refs[branch] = found[1]
    return reply_json({})


REPO = r"(?P<repo>[^/]+/[^/]+)"
ROUTES: list[tuple[str, Callable[..., Reply]]] = [
    (rf"(GET|HEAD) /{REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", resolve),
    (rf"GET /api/models/{REPO}/revision/(?P<revision>[^/]+)", revision_info),
    (rf"GET /api/models/{REPO}", revision_info),
    (rf"GET /api/models/{REPO}/tree/(?P<revision>[^/]+)", tree_listing),
    (r"POST /api/repos/create", create_repo),
    (r"POST /api/validate-yaml", validate_yaml),
    (rf"POST /api/models/{REPO}/preupload/(?P<revision>[^/]+)", preupload),
    (rf"POST /api/models/{REPO}/commit/(?P<revision>[^/]+)", commit),
    (rf"POST /api/models/{REPO}/branch/(?P<branch>[^/]+)", create_branch),
    (rf"POST /{REPO}\.git/info/lfs/objects/batch", lfs_batch),
    (r"PUT /lfs/(?P<oid>[0-9a-f]{64})", lfs_put),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        """Keep the test's output clean."""

    def handle_request(self) -> None:
        url = urlsplit(self.path)
        reply = self.server.hub.answer(self.command, url.path, url.query, self.headers, self._read())
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        length = int(reply.headers.get("Content-Length", len(reply.body)))
        body = b"" if self.command == "HEAD" else reply.body[start:]
        self.send_response(206 if start else reply.status)
        for key, value in {**reply.headers, "Content-Length": str(length - start)}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
        if self.command != "HEAD" and len(body) < length - start:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

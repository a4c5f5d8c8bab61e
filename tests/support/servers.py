"""Servers on loopback for the tests of remote stores: plain HTTP, S3 and Google Cloud Storage, over one dictionary.

Each counts its requests and breaks as it is told to. They are written from the protocols' descriptions, not from what
tensorstore sends; S3 checks signatures (version 4) where it is given keys.
"""

import hashlib
import hmac
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Server:
    """A server of `objects`, {path: bytes}; a context manager. Paths begin with the bucket, if there are buckets."""

    def __init__(self):
        self.objects = {}
        self.requests = []
        """(method, path) of each request, faults included."""
        self.faults = []
        """What befalls the next requests, one after the other: a status, "close", "half", or None for nothing."""
        self.broken = {}
        """The same for every request whose path contains the key."""
        self.queries, self.authorisations = [], set()
        """What came behind question marks, and in the header Authorization."""
        self.after_put = lambda: None
        """Called when an object has been stored and before that is answered."""
        self._lock = threading.Lock()

    def __enter__(self):
        os.environ["no_proxy"] = "127.0.0.1"
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}"

    def serve_folder(self, folder, prefix):
        """Take over the files below a folder, under `prefix`/."""
        for file in folder.rglob("*"):
            if file.is_file():
                self.objects[f"{prefix}/{file.relative_to(folder).as_posix()}"] = file.read_bytes()

    def tree(self, prefix):
        """The objects below `prefix`/, by the rest of their names."""
        return {
            path.removeprefix(f"{prefix}/"): data
            for path, data in self.objects.items()
            if path.startswith(f"{prefix}/")
        }

    def count(self, method, pattern=""):
        """How many requests of a method had a path that matches."""
        return sum(done == method and re.search(pattern, path) is not None for done, path in self.requests)

    def fault_of(self, method, path):
        """Note a request; returns what is to befall it."""
        with self._lock:
            self.requests.append((method, path))
            for part, fault in self.broken.items():
                if part in path:
                    return fault
            return self.faults.pop(0) if self.faults else None

    def respond(self, method, path, query, headers, body):
        """Status, headers and body; a body is cut to the request's range afterwards."""
        if method in ("GET", "HEAD"):
            return (200, {}, self.objects[path]) if path in self.objects else (404, {}, b"not found")
        return 405, {}, b""


class S3Server(Server):
    """Path-style S3: GET, HEAD, PUT, DELETE, ListObjectsV2."""

    def __init__(self, buckets=("bucket",), keys=None):
        super().__init__()
        self.buckets = set(buckets)
        self.keys = keys
        """{access key: secret}; None lets everybody in, without a look at signatures."""

    def respond(self, method, path, query, headers, body):
        if self.keys is not None and not self._is_signed(method, headers, body):
            return _s3_error(403, "AccessDenied")
        bucket, _, key = path.partition("/")
        if bucket not in self.buckets:
            return _s3_error(404, "NoSuchBucket")
        if not key:
            return 200, {"x-amz-bucket-region": "us-east-1"}, self._listing(bucket, query)
        if method == "PUT":
            self.objects[path] = body
            return 200, {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}, b""
        if method == "DELETE":
            self.objects.pop(path, None)
            return 204, {}, b""
        if path not in self.objects:
            return _s3_error(404, "NoSuchKey")
        data = self.objects[path]
        return 200, {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}, data

    def _listing(self, bucket, query):
        prefix = query.get("prefix", [""])[0]
        keys = sorted(path.partition("/")[2] for path in self.objects if path.startswith(f"{bucket}/{prefix}"))
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[f'{bucket}/{key}'])}</Size></Contents>"
            for key in keys
        )
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(keys)}</KeyCount>"
            f"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        ).encode()

    def _is_signed(self, method, headers, body):
        """AWS Signature Version 4, in the header Authorization."""
        found = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d+)/([^/]+)/s3/aws4_request, ?SignedHeaders=([^,]+), ?"
            r"Signature=([0-9a-f]{64})",
            headers.get("Authorization") or "",
        )
        if found is None or found[1] not in self.keys:
            return False
        key, date, region, names, signature = found.groups()
        url = urlsplit(headers["path"])
        words = sorted(word if "=" in word else f"{word}=" for word in url.query.split("&") if word)
        signed = "".join(f"{name}:{headers[name].strip()}\n" for name in names.split(";"))
        digest = headers["x-amz-content-sha256"]
        request = "\n".join([method, url.path, "&".join(words), signed, names, digest])
        scope = f"{date}/{region}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        secret = f"AWS4{self.keys[key]}".encode()
        for word in scope.split("/"):
            secret = hmac.digest(secret, word.encode(), "sha256")
        return (
            digest == hashlib.sha256(body).hexdigest()
            and hmac.digest(secret, text.encode(), "sha256").hex() == signature
        )


class GcsServer(Server):
    """Google Cloud Storage's JSON interface: reading and simple uploads."""

    def respond(self, method, path, query, headers, body):
        upload = re.fullmatch(r"upload/storage/v1/b/([^/]+)/o", path)
        if method == "POST" and upload:
            name = query["name"][0]
            self.objects[f"{upload[1]}/{name}"] = body
            answer = f'{{"name": "{name}", "bucket": "{upload[1]}", "generation": "1", "size": "{len(body)}"}}'
            return 200, {}, answer.encode()
        read = re.fullmatch(r"storage/v1/b/([^/]+)/o/(.+)", path)
        if method == "GET" and read and f"{read[1]}/{read[2]}" in self.objects:
            return 200, {"x-goog-generation": "1"}, self.objects[f"{read[1]}/{read[2]}"]
        return 404, {}, b"not found"


def _s3_error(status, code):
    return status, {}, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner = None

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        path = unquote(url.path).removeprefix("/")
        fault = self.owner.fault_of(self.command, path)
        if fault == "close":
            self.close_connection = True
            return
        self.headers["path"] = self.path
        self.owner.queries.append(url.query)
        self.owner.authorisations.add(self.headers.get("Authorization"))
        query = parse_qs(url.query, keep_blank_values=True)
        if isinstance(fault, int):
            status, headers, data = fault, {}, b"<p>out of order</p>"
        else:
            status, headers, data = self.owner.respond(self.command, path, query, self.headers, body)
        if self.command == "PUT":
            self.owner.after_put()
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if status == 200 and wanted:
            size = len(data)
            first = int(wanted[1]) if wanted[1] else max(0, size - int(wanted[2]))
            stop = min(size, int(wanted[2]) + 1) if wanted[1] and wanted[2] else size
            if first >= size:
                status, headers, data = 416, {"Content-Range": f"bytes */{size}"}, b""
            else:
                status, data = 206, data[first:stop]
                headers = {**headers, "Content-Range": f"bytes {first}-{stop - 1}/{size}"}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if fault == "half":
            data = data[: len(data) // 2]
            self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_):
        pass

"""A fake of Azure Blob Storage: one account, the container `test`, in memory.

fakeazure.py PORT    pages have 3 blobs; who asks has to sign, but no signature is verified
"""
import base64, hashlib, http.server, sys, threading, time, urllib.parse

PAGE = 3
KEPT = ('content-type', 'content-encoding', 'content-language', 'content-disposition', 'cache-control')
lock = threading.Lock()
blobs, blocks, clock = {}, {}, [0]


def escape(text):
    return text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')


def error(code):
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>m</Message></Error>'.encode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        pass

    def answer(self, status, body=b'', headers={}):
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get('content-length') or 0))
        url = urllib.parse.urlparse(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        path = url.path[1:].split('/', 2)
        key = urllib.parse.unquote(path[2]) if len(path) > 2 else ''
        if not (self.headers.get('authorization') or '').startswith('SharedKey account:') and 'sig' not in query:
            return self.answer(403, error('AuthenticationFailed'))
        if path[:2] != ['account', 'test']:
            return self.answer(404, error('ContainerNotFound'))
        sum_ = self.headers.get('content-md5')
        if sum_ and sum_ != base64.b64encode(hashlib.md5(body).digest()).decode():
            return self.answer(400, error('Md5Mismatch'))
        with lock:
            if self.command == 'GET' and query.get('comp') == 'list':
                return self.list(query)
            if self.command == 'PUT':
                return self.put(key, query, body)
            if key not in blobs:
                return self.answer(404, error('BlobNotFound'))
            if self.command == 'DELETE':
                del blobs[key]
                return self.answer(202)
            if query.get('comp') == 'tags':
                return self.tags(blobs[key])
            return self.get(blobs[key])

    def put(self, key, query, body):
        if query.get('comp') == 'tags':
            blobs[key]['tags'] = body.decode()
            return self.answer(204)
        if query.get('comp') == 'tier':
            return self.tier(key)
        if query.get('comp') == 'block':
            blocks.setdefault(key, {})[query['blockid']] = body
            return self.answer(201)
        if query.get('comp') == 'blocklist':
            ids = [part.split('<')[0] for part in body.decode().split('<Latest>')[1:]]
            staged = blocks.pop(key, {})
            if any(id not in staged for id in ids):
                return self.answer(400, error('InvalidBlockList'))
            body = b''.join(staged[id] for id in ids)
        elif self.headers.get('x-ms-blob-type') != 'BlockBlob':
            return self.answer(400, error('MissingRequiredHeader'))
        clock[0] += 1
        kept = {name: self.headers['x-ms-blob-' + name] for name in KEPT if 'x-ms-blob-' + name in self.headers}
        meta = {name.lower(): value for name, value in self.headers.items() if name.lower().startswith('x-ms-meta-')}
        if any('-' in name[len('x-ms-meta-'):] for name in meta):
            return self.answer(400, error('InvalidMetadata'))
        blobs[key] = {
            'body': body,
            'etag': '0x8D%05X' % clock[0],
            'time': time.strftime('%a, %d %b %Y %H:%M:%S GMT', time.gmtime()),
            'headers': {'content-type': 'application/octet-stream', **kept, **meta},
            'tags': self.headers.get('x-ms-tags') or '',
            'tier': self.headers.get('x-ms-access-tier') or '',
        }
        self.answer(201, headers={'ETag': '"%s"' % blobs[key]['etag']})

    def tier(self, key):
        """What comes out of the archive is there at the third look at it."""
        blob, tier = blobs.get(key), self.headers['x-ms-access-tier']
        if blob is None:
            return self.answer(404, error('BlobNotFound'))
        if blob.get('looks'):
            return self.answer(409, error('BlobBeingRehydrated'))
        if blob['tier'] != 'Archive' or self.headers['x-ms-rehydrate-priority'] not in ('Standard', 'High'):
            blob['tier'] = tier
            return self.answer(200)
        blob.update(looks=3, to=tier)
        self.answer(202)

    def look(self, blob):
        headers = {'ETag': '"%s"' % blob['etag'], 'Last-Modified': blob['time'], **blob['headers']}
        if blob.get('looks'):
            blob['looks'] -= 1
            if not blob['looks']:
                blob['tier'] = blob['to']
        if blob.get('looks'):
            headers['x-ms-archive-status'] = 'rehydrate-pending-to-' + blob['to'].lower()
        headers['x-ms-access-tier'] = blob['tier'] or 'Hot'
        self.answer(200, blob['body'], headers)

    def get(self, blob):
        if self.command == 'HEAD':
            return self.look(blob)
        if blob['tier'] == 'Archive':
            return self.answer(409, error('BlobArchived'))
        tag = '"%s"' % blob['etag']
        if self.headers.get('if-match') not in (None, tag):
            return self.answer(412, error('ConditionNotMet'))
        headers = {'ETag': tag, 'Last-Modified': blob['time'], **blob['headers']}
        if blob['tags']:
            headers['x-ms-tag-count'] = str(len(blob['tags'].split('&')))
        body, size = blob['body'], len(blob['body'])
        if asked := self.headers.get('range'):
            first, last = (int(number) for number in asked[len('bytes='):].split('-'))
            if first >= size:
                return self.answer(416, error('InvalidRange'))
            last = min(last, size - 1)
            headers['Content-Range'] = f'bytes {first}-{last}/{size}'
            return self.answer(206, body[first:last + 1], headers)
        self.answer(200, body, headers)

    def tags(self, blob):
        pairs = urllib.parse.parse_qsl(blob['tags'], keep_blank_values=True)
        text = ''.join(f'<Tag><Key>{escape(k)}</Key><Value>{escape(v)}</Value></Tag>' for k, v in pairs)
        self.answer(200, f'\ufeff<?xml version="1.0"?><Tags><TagSet>{text}</TagSet></Tags>'.encode())

    def list(self, query):
        prefix, marker = query.get('prefix', ''), query.get('marker', '')
        keys = sorted(key for key in blobs if key.startswith(prefix) and key >= marker)
        page, rest = keys[:PAGE], keys[PAGE:]
        text = ''.join(self.listed(key, blobs[key]) for key in page)
        after = f'<NextMarker>{escape(rest[0])}</NextMarker>' if rest else '<NextMarker />'
        self.answer(200, (
            f'\ufeff<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="test">'
            f'<Prefix>{escape(prefix)}</Prefix><Blobs>{text}</Blobs>{after}</EnumerationResults>'
        ).encode(), {'Content-Type': 'application/xml'})

    def listed(self, key, blob):
        tier = f"<AccessTier>{blob['tier']}</AccessTier>" if blob['tier'] else \
            '<AccessTier>Hot</AccessTier><AccessTierInferred>true</AccessTierInferred>'
        return (
            f"<Blob><Name>{escape(key)}</Name><Properties><Last-Modified>{blob['time']}</Last-Modified>"
            f"<Etag>{blob['etag']}</Etag><Content-Length>{len(blob['body'])}</Content-Length>"
            f'<BlobType>BlockBlob</BlobType>{tier}</Properties></Blob>'
        )

    do_GET = do_PUT = do_DELETE = do_HEAD = handle_any


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()

"""An HTTP proxy before a storage: notes each request, and breaks as many as it is told to.

proxy.py PORT UPSTREAM_PORT [CERTIFICATE KEY]    (both sides plain; TLS to the client with a certificate)

    GET /__break/MODE/N    the next N requests that MODE applies to are broken
    GET /__broken          how many were
Requests are appended to requests.jsonl in the working folder.
"""
import http.client, http.server, json, socket, ssl, struct, sys, threading, time

port, upstream = int(sys.argv[1]), int(sys.argv[2])
lock = threading.Lock()
state = {'mode': '', 'left': 0, 'broken': 0}
METHODS = {'trunc': 'GET', 'slowget': 'GET', 'stallget': 'GET', 'commit500': 'PUT', 'commitrst': 'PUT'}
SILENCE = 20


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        pass

    def control(self):
        words = self.path.split('/')
        with lock:
            if words[1] == '__break':
                state.update(mode=words[2], left=int(words[3]), broken=0)
            self.answer(200, {}, str(state['broken']).encode())

    def breaks(self):
        with lock:
            applies = METHODS.get(state['mode'], self.command) == self.command
            if not applies or state['left'] == 0:
                return ''
            state['left'] -= 1
            state['broken'] += 1
            return state['mode']

    def note(self, body):
        request = {'method': self.command, 'path': self.path, 'length': len(body)}
        request['headers'] = {name.lower(): value for name, value in self.headers.items()}
        with lock, open('requests.jsonl', 'a') as file:
            file.write(json.dumps(request) + '\n')

    def handle_any(self):
        if self.path.startswith('/__'):
            return self.control()
        body = self.rfile.read(int(self.headers.get('content-length') or 0))
        self.note(body)
        mode = self.breaks()
        if mode == '503':
            return self.answer(503, {'Content-Type': 'application/xml', 'Retry-After': '1'}, b'<Error><Code>SlowDown</Code></Error>')
        if mode == '500':
            return self.answer(500, {}, b'<Error><Code>InternalError</Code></Error>')
        if mode == '429':
            return self.answer(429, {'Retry-After': '1'}, b'')
        if mode == 'rst':
            return self.reset()
        if mode == 'hang':
            time.sleep(SILENCE)
            return self.reset()
        if mode == 'flip' and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        status, headers, data = self.forward(body)
        if mode == 'commit500':
            return self.answer(500, {}, b'<Error><Code>InternalError</Code></Error>')
        if mode == 'commitrst':
            return self.reset()
        if mode == 'ok200err':
            return self.answer(200, {'Content-Type': 'application/xml'}, b'<Error><Code>InternalError</Code></Error>')
        if mode in ('trunc', 'slowget', 'stallget'):
            return self.dribble(mode, status, headers, data)
        self.answer(status, headers, data)

    def forward(self, body):
        connection = http.client.HTTPConnection('127.0.0.1', upstream)
        headers = {name: value for name, value in self.headers.items() if name.lower() != 'connection'}
        connection.request(self.command, self.path, body or None, headers)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        drop = ('connection', 'transfer-encoding', 'server', 'date')
        return response.status, {n: v for n, v in response.getheaders() if n.lower() not in drop}, data

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.connection.close()
        self.close_connection = True

    def dribble(self, mode, status, headers, data):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if mode == 'slowget':
            step = max(1, len(data) // 10)
            for at in range(0, len(data), step):
                self.wfile.write(data[at:at + step])
                self.wfile.flush()
                time.sleep(0.1)
            return
        self.wfile.write(data[:len(data) // 2])
        self.wfile.flush()
        if mode == 'stallget':
            time.sleep(SILENCE)
        self.reset()

    def answer(self, status, headers, data):
        self.send_response(status)
        is_head = self.command == 'HEAD'
        for name, value in headers.items():
            if name.lower() != 'content-length' or is_head:
                self.send_header(name, value)
        if not is_head and status != 204:
            self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        if not is_head:
            self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


server = Server(('127.0.0.1', port), Handler)
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3], sys.argv[4])
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()

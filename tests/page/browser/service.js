/**
 * What the tests of the page need: a `larder serve` of their own, a browser, and servers to back up to.
 */

import { spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';

const { LARDER_BIN, LARDER_PAGE_NODE, LARDER_CHROMIUM = '/usr/bin/chromium' } = process.env;
const fromNode = createRequire(join(LARDER_PAGE_NODE ?? process.cwd(), 'index.js'));
const { chromium } = fromNode('playwright-core');

/** The text of axe, which is run within the page. */
export const AXE = readFileSync(fromNode.resolve('axe-core/axe.min.js'), 'utf8');

const CHROMIUM_FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-dev-shm-usage',
];
const START_SECONDS = 120;

/** Makes a folder that goes away at the end. */
export function scratch() {
  const path = mkdtempSync(join(tmpdir(), 'larder-page-'));
  chmodSync(path, 0o700);
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** Starts a browser. */
export function browser() {
  return chromium.launch({ executablePath: LARDER_CHROMIUM, args: CHROMIUM_FLAGS });
}

/**
 * Starts `larder serve` on a port of its own, with an empty configuration below a folder.
 *
 * @returns {Promise<{url: string, token: string, stop: function(): Promise}>}
 */
export async function serve(folder) {
  const home = join(folder, 'home');
  mkdirSync(home, { recursive: true });
  const config = join(folder, 'larder.toml');
  writeFileSync(config, '', { mode: 0o600 });
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith('LARDER_') && !name.startsWith('AWS_'));
  const env = { ...Object.fromEntries(kept), HOME: home, XDG_CONFIG_HOME: join(home, 'config'), XDG_STATE_HOME: join(home, 'state'), XDG_CACHE_HOME: join(home, 'cache'), XDG_DATA_HOME: join(home, 'data') };
  const args = ['--config', config, 'serve', '--json', '--listen', '127.0.0.1:0', '--data', join(folder, 'data')];
  const process_ = started(LARDER_BIN, args, { env });
  const { address, token } = JSON.parse(await process_.said(/^\{.*"address".*\}$/m));
  const url = `http://${address}`;
  return { url, token, stop: process_.stop, output: process_.output };
}

/** Starts a Python program that prints its port, in the environment that has the servers; null without that. */
export async function python(source, ...args) {
  const venv = process.env.LARDER_SERVERS_VENV;
  if (!venv || !statSync(join(venv, 'ready'), { throwIfNoEntry: false })) return null;
  const process_ = started(join(venv, 'bin/python'), ['-u', '-c', source, ...args], { env: process.env });
  const port = (await process_.said(/PORT \d+/)).split(' ')[1];
  return { port, stop: process_.stop };
}

/** An FTP server with the user me and the password right. */
export const FTP = `
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import ThreadedFTPServer
users = DummyAuthorizer()
users.add_user('me', 'right', sys.argv[1], perm='elradfmwMT')
FTPHandler.authorizer = users
FTPHandler.auth_failed_timeout = 0
server = ThreadedFTPServer(('127.0.0.1', 0), FTPHandler)
server.max_cons = 0
server.max_cons_per_ip = 0
print('PORT', server.address[1])
server.serve_forever()
`;

/** An S3 service with a bucket of the name that is given; it takes any key. */
export const S3 = `
import sys
import boto3
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
client = boto3.client('s3', endpoint_url=f'http://{host}:{port}', region_name='us-east-1', aws_access_key_id='k', aws_secret_access_key='s')
client.create_bucket(Bucket=sys.argv[1])
print('PORT', port)
import time
while True:
    time.sleep(60)
`;

function started(program, args, options) {
  const child = spawn(program, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  let ended = null;
  const waiting = new Set();
  const wake = () => waiting.forEach((look) => look());
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      text += data;
      wake();
    });
  }
  const end = new Promise((resolve) => {
    const note = (why) => {
      ended = why;
      wake();
      resolve();
    };
    child.on('exit', (code, signal) => note(`ended with ${code ?? signal}`));
    child.on('error', (error) => note(`could not be started: ${error.message}`));
  });
  const said = (pattern) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => give(reject, new Error(`${program} did not say ${pattern} in ${START_SECONDS} s:\n${text}`)), START_SECONDS * 1000);
      const give = (settle, value) => {
        clearTimeout(timer);
        waiting.delete(look);
        settle(value);
      };
      const look = () => {
        const found = pattern.exec(text);
        if (found) give(resolve, found[0]);
        else if (ended) give(reject, new Error(`${program} ${ended}:\n${text}`));
      };
      waiting.add(look);
      look();
    });
  const stop = async () => {
    if (ended === null) child.kill('SIGTERM');
    await end;
  };
  return { said, stop, output: () => text };
}

/** Gives every file below a folder with its bytes, by its path from there. */
export function filesOf(folder, root = folder) {
  const entries = readdirSync(folder, { withFileTypes: true });
  const found = entries.flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? Object.entries(filesOf(path, root)) : [[relative(root, path), readFileSync(path).toString('base64')]];
  });
  return Object.fromEntries(found);
}

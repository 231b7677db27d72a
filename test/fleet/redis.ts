/** A Redis of the test's own: on a free port, with an append-only file, started again at will. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';

export const redisProgram = ['redis-server', 'valkey-server'].find(
  (name) => spawnSync(name, ['--version']).status === 0,
);

/** Redis may have been built without TLS. */
export const hasTls =
  redisProgram !== undefined &&
  spawnSync('openssl', ['version']).status === 0 &&
  // With no port at all it ends at once, and only one without TLS does not know what a TLS port is.
  !/Bad directive/.test(String(spawnSync(redisProgram, ['--port', '0', '--tls-port', '0'], { timeout: 5000 }).stderr));

export interface RedisServer {
  readonly url: string;
  /** Kills it without warning and starts it with what is on its disk. */
  crash(): Promise<void>;
  end(): void;
}

/** With a certificate of an authority of its own, which is in the folder as `ca.pem`. */
export function startTlsRedis(folder: string): Promise<{ readonly url: string; end(): void }> {
  const file = (name: string): string => join(folder, name);
  const openssl = (...args: string[]): void => void execFileSync('openssl', args, { stdio: 'pipe', cwd: folder });
  const subject = ['-nodes', '-newkey', 'rsa:2048', '-days', '2'];
  openssl('req', '-x509', ...subject, '-subj', '/CN=authority', '-keyout', 'ca.key', '-out', 'ca.pem');
  openssl('req', ...subject, '-subj', '/CN=localhost', '-keyout', 'key.pem', '-out', 'request.pem');
  writeFileSync(file('names'), 'subjectAltName=DNS:localhost');
  const signing = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'names'];
  openssl('x509', '-req', '-in', 'request.pem', ...signing, '-out', 'cert.pem');
  return freePort().then(async (port) => {
    const tls = ['--tls-port', String(port), '--tls-cert-file', file('cert.pem'), '--tls-key-file', file('key.pem')];
    const rest = ['--port', '0', '--tls-auth-clients', 'no', '--tls-ca-cert-file', file('ca.pem')];
    const common = ['--bind', '127.0.0.1', '--dir', folder, '--save', '', '--requirepass', 'a password'];
    const server = spawn(redisProgram as string, [...tls, ...rest, ...common], { stdio: 'ignore' });
    const redis = new Redis(port, 'localhost', {
      password: 'a password',
      tls: { ca: readFileSync(file('ca.pem')) },
      retryStrategy: () => 20,
      maxRetriesPerRequest: null,
    }).on('error', () => undefined);
    while (server.exitCode === null && (await redis.ping().catch(() => '')) !== 'PONG');
    redis.disconnect();
    return { url: `rediss://localhost:${port}`, end: () => void server.kill('SIGKILL') };
  });
}

export async function startRedis(password?: string): Promise<RedisServer> {
  const folder = mkdtempSync(join(tmpdir(), 'fastmqa-redis-'));
  const port = await freePort();
  const protection = password === undefined ? [] : ['--requirepass', password];
  let server: ChildProcess;
  const start = async (): Promise<void> => {
    const settings = [
      '--bind',
      '127.0.0.1',
      '--dir',
      folder,
      '--save',
      '',
      '--appendonly',
      'yes',
      '--appendfsync',
      'always',
    ];
    server = spawn(redisProgram as string, ['--port', String(port), ...settings, ...protection], { stdio: 'ignore' });
    const redis = new Redis(port, '127.0.0.1', {
      ...(password === undefined ? {} : { password }),
      retryStrategy: () => 20,
      maxRetriesPerRequest: null,
    }).on('error', () => undefined);
    while (server.exitCode === null && (await redis.ping().catch(() => '')) !== 'PONG');
    redis.disconnect();
    if (server.exitCode !== null) throw new Error(`Redis ended with exit code ${server.exitCode}`);
  };
  const kill = (): Promise<unknown> => {
    const ended = new Promise((resolve) => server.once('exit', resolve));
    server.kill('SIGKILL');
    return ended;
  };
  await start();
  return {
    url: `redis://127.0.0.1:${port}`,
    crash: async () => {
      await kill();
      await start();
    },
    end: () => {
      server.kill('SIGKILL');
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/**
 * A port for a program that cannot choose one itself. Not one of those that systems hand out: between two starts of the program
 * any connection could be given it, even one to that port, which then talks to itself.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(10_000, 32_000);
    const server = createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false)).listen(port, '127.0.0.1', () => resolve(true));
    });
    if (!isFree) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}

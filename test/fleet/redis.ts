/** A Redis of the test's own: on a free port, with an append-only file, started again at will. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';

export const redisProgram = ['redis-server', 'valkey-server'].find(
  (name) => spawnSync(name, ['--version']).status === 0,
);

export interface RedisServer {
  readonly url: string;
  /** Kills it without warning and starts it with what is on its disk. */
  crash(): Promise<void>;
  end(): void;
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
    while ((await redis.ping().catch(() => '')) !== 'PONG');
    redis.disconnect();
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

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

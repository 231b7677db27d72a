/** An agent on this machine: its life, and how whoever comes over ssh attaches to it or starts it. */
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import type { Socket } from 'node:net';
import os from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { InputError } from '../contract/input-error.ts';
import { versionOf } from '../fleet/queue.ts';
import { Agent, type AgentMachine } from '../remote/agent.ts';
import { listenForClients, makePrivateFolder, reachSocket } from '../remote/listen.ts';
import { holdSession } from '../sessions/hold.ts';
import { kernelsFingerprint } from './environment.ts';
import { dataFolder } from './folders.ts';

const agentFolder = (): string => join(dataFolder(), 'agent');
const socketOf = (folder: string): string => join(folder, 'agent.sock');

export interface AgentOptions {
  /** Ends when nobody is connected and nothing is measured for this long; absent: never. */
  readonly idleSeconds?: number;
  readonly onReady: (socket: string) => void;
  /** Ends it; what it measures is kept. */
  readonly signal: AbortSignal;
}

const lookMilliseconds = 1000;

/** Until `signal`, or until it is idle for long. @throws InputError where another agent of this user runs. */
export async function runAgent(
  { idleSeconds, onReady, signal }: AgentOptions,
  machine: Omit<AgentMachine, 'host' | 'version'>,
): Promise<void> {
  const folder = agentFolder();
  await makePrivateFolder(folder);
  const release = await holdSession(join(folder, 'agent'));
  try {
    const host = os.hostname();
    const agent = await Agent.open({ ...machine, host, version: versionOf(kernelsFingerprint()) }, folder);
    const clients = new Set<Socket>();
    const socket = socketOf(folder);
    const server = await listenForClients(socket, agent.api);
    server.on('connection', (client: Socket) => {
      clients.add(client);
      client.once('close', () => clients.delete(client));
    });
    onReady(socket);
    let idleSince = performance.now();
    while (!signal.aborted) {
      await sleep(lookMilliseconds, undefined, { signal }).catch(() => undefined);
      if (clients.size > 0 || agent.isBusy) idleSince = performance.now();
      if (idleSeconds !== undefined && performance.now() - idleSince > idleSeconds * 1000) break;
    }
    server.close();
    await agent.close();
    for (const client of clients) client.destroy();
    await rm(socket, { force: true });
  } finally {
    await release();
  }
}

/** An agent that was started by a connection has nothing to do for this long and ends. */
const backgroundIdleSeconds = 600;
const startSeconds = 60;
const retryMilliseconds = 50;

/** Joins stdin and stdout with the agent of this user, which is started if there is none and outlives the connection. */
export async function attachToAgent(): Promise<void> {
  const socket = await reachOrStart();
  process.stdin.pipe(socket);
  socket.pipe(process.stdout);
  await new Promise<void>((resolve) => {
    socket.once('close', resolve).on('error', () => undefined);
    process.stdout.once('error', () => socket.destroy());
  });
}

async function reachOrStart(): Promise<Socket> {
  const folder = agentFolder();
  const path = socketOf(folder);
  const there = await reachSocket(path);
  if (there) return there;
  await makePrivateFolder(folder);
  const log = join(folder, 'agent.log');
  const output = openSync(log, 'w', 0o600);
  const [script] = process.argv.slice(1) as [string];
  const background = ['agent', '--idle', String(backgroundIdleSeconds)];
  const child = spawn(process.execPath, [script, ...background], {
    detached: true,
    stdio: ['ignore', output, output],
    cwd: folder,
  });
  child.unref();
  closeSync(output);
  // One that another connection started at the same moment is as good: then ours ends by itself.
  const deadline = performance.now() + startSeconds * 1000;
  for (;;) {
    const socket = await reachSocket(path);
    if (socket) return socket;
    if (performance.now() > deadline)
      throw new InputError(`no agent could be started on ${os.hostname()}; see ${log} there`);
    await sleep(retryMilliseconds);
  }
}

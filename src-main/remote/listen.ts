/**
 * The door of an agent: a socket file in the user's own folder, so that only the user gets in. Whoever comes over ssh attaches
 * to it; no port is opened.
 */
import { chmod, mkdir, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { InputError } from '../contract/input-error.ts';
import { encodeFrame, frameReader } from '../worker/frames.ts';
import { type AgentApi, agentCalls, greeting, largestFrameBytes, type Reply, requestSchema } from './protocol.ts';

const mostConnections = 32;
/** The kernel cuts longer names off. */
const longestSocketName = 103;

/** @throws InputError where the socket cannot be made. */
export async function listenForClients(path: string, api: AgentApi): Promise<Server> {
  if (Buffer.byteLength(path) > longestSocketName)
    throw new InputError(
      `the name of the agent's socket is too long, ${path}: set FASTMQA_HOME to a folder with a shorter name`,
    );
  await makePrivateFolder(dirname(path));
  await rm(path, { force: true });
  const server = createServer((socket) => serve(socket, api));
  server.maxConnections = mostConnections;
  const mask = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(path, resolve);
    });
  } catch (error) {
    throw new InputError(`cannot listen at ${path}: ${(error as Error).message}`);
  } finally {
    process.umask(mask);
  }
  return server;
}

export async function makePrivateFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await chmod(folder, 0o700);
}

function serve(socket: Socket, api: AgentApi): void {
  socket.on('error', () => undefined); // the client is gone, and comes again if it wants
  socket.write(greeting);
  const hear = async (message: unknown): Promise<void> => {
    const request = requestSchema.safeParse(message);
    if (!request.success) return void socket.destroy();
    const { id, call, input } = request.data;
    const reply = await answer(api, call, input).then(
      (value): Reply => ({ id, ok: true, value }),
      (error: unknown): Reply => ({
        id,
        ok: false,
        message: error instanceof Error ? error.message : String(error),
        ...(error instanceof InputError && error.subject !== undefined ? { subject: error.subject } : {}),
      }),
    );
    if (socket.writable) socket.write(encodeFrame(reply));
  };
  socket.on(
    'data',
    frameReader((message) => void hear(message), largestFrameBytes),
  );
}

function answer<Call extends keyof AgentApi>(api: AgentApi, call: Call, input: unknown): Promise<unknown> {
  const parsed = agentCalls[call].input.safeParse(input);
  if (!parsed.success) return Promise.reject(new InputError(`the agent cannot understand ${call}: another version?`));
  return api[call](parsed.data as never);
}

/** @returns undefined where no agent listens. */
export function reachSocket(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => resolve(socket)).once('error', () => resolve(undefined));
  });
}

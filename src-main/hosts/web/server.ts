/** Node's server with the gate in front: a request that the gate refuses never reaches the routes. */
import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { getRequestListener } from '@hono/node-server';
import type { Hono } from 'hono';
import { InputError } from '../../contract/input-error.ts';
import { securityHeaders } from '../headers.ts';
import { type Refusal, refusalOf } from './gate.ts';
import type { Keys } from './keys.ts';

const loopback = '127.0.0.1';
const maxHeaderBytes = 16 * 1024;

export function createGatedServer(routes: Hono, keys: Keys): Server {
  const handle = getRequestListener(routes.fetch, { overrideGlobalObjects: false });
  const server = createServer({ maxHeaderSize: maxHeaderBytes, requireHostHeader: false }, (request, response) => {
    const refusal = refusalOf(request, portOf(server), keys);
    if (refusal) refuse(request, response, refusal);
    else void handle(request, response);
  });
  const hangUp = (status: number) => (_: unknown, socket: Duplex) => closeWith(socket, status);
  server
    .on('upgrade', hangUp(426))
    .on('connect', hangUp(405))
    .on('checkContinue', (request, response) => {
      refuse(request, response, { status: 400, says: 'no expectations' });
    });
  server.on('clientError', (_, socket) => closeWith(socket, 400));
  server.maxConnections = 256;
  server.headersTimeout = 10_000;
  server.requestTimeout = 30_000;
  return server;
}

/** @throws InputError where the port cannot be had. */
export function listen(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const cause = error.code === 'EADDRINUSE' ? 'another program listens there' : (error.code ?? error.message);
      reject(new InputError(`cannot listen on ${loopback}:${port}: ${cause}`, 'port'));
    });
    server.listen({ host: loopback, port, exclusive: true }, resolve);
  });
}

export const portOf = (server: Server): number => (server.address() as AddressInfo | null)?.port ?? 0;

function refuse(request: IncomingMessage, response: ServerResponse, { status, says }: Refusal): void {
  request.resume(); // what it still sends is of no interest, but must not block the answer
  response.writeHead(status, {
    ...securityHeaders(),
    'Content-Type': 'text/plain; charset=utf-8',
    Connection: 'close',
  });
  response.end(`${says}\n`);
}

function closeWith(socket: Duplex, status: number): void {
  if (!socket.writable) return void socket.destroy();
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

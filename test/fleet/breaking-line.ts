/** A line to a server that breaks in the middle of an answer, again and again. */
import { connect, createServer, type Socket } from 'node:net';

export interface BreakingLine {
  readonly port: number;
  readonly breaks: () => number;
  end(): void;
}

/**
 * @param bytes after how many bytes of answers the n-th connection breaks, the rest of the answer lost; it holds where there is
 * no such number
 */
export function breakingLine(target: number, bytes: readonly (number | undefined)[]): Promise<BreakingLine> {
  let [connections, breaks] = [0, 0];
  const open = new Set<Socket>();
  const server = createServer((client) => {
    let left = bytes[connections] ?? Number.POSITIVE_INFINITY;
    connections += 1;
    const upstream = connect(target, '127.0.0.1');
    const hangUp = (): void => {
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) {
      open.add(socket);
      socket.on('error', hangUp).on('close', () => {
        open.delete(socket);
        hangUp();
      });
    }
    client.pipe(upstream);
    upstream.on('data', (answer: Buffer) => {
      client.write(answer.subarray(0, left));
      left -= answer.length;
      if (left > 0) return;
      breaks += 1;
      client.end();
      upstream.destroy();
    });
  });
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      const end = (): void => {
        server.close();
        for (const socket of open) socket.destroy();
      };
      resolve({ port, breaks: () => breaks, end });
    });
  });
}

/**
 * Messages over a pipe: the length in four bytes, then a structured clone. Node's own channel throws where nobody can catch it
 * when the other side writes nonsense; here nonsense is a message like any other, and refused like any other.
 */
import { deserialize, serialize } from 'node:v8';

const lengthBytes = 4;

/** The file descriptor of the pipe in the worker. */
export const pipeDescriptor = 3;

export function encodeFrame(message: unknown): Buffer {
  const content = serialize(message);
  const frame = Buffer.allocUnsafe(lengthBytes + content.length);
  frame.writeUInt32LE(content.length);
  content.copy(frame, lengthBytes);
  return frame;
}

/**
 * Puts frames together from the pieces that a pipe delivers. A frame that cannot be read, or is to be larger than `largestBytes`,
 * is told as `undefined`; what follows the latter is not kept.
 */
export function frameReader(
  onMessage: (message: unknown) => void,
  largestBytes = Number.POSITIVE_INFINITY,
): (piece: Uint8Array) => void {
  let waiting: Uint8Array[] = [];
  let waitingBytes = 0;
  return (piece) => {
    waiting.push(piece);
    waitingBytes += piece.length;
    while (waitingBytes >= lengthBytes) {
      if (waiting[0].length < lengthBytes) waiting = [Buffer.concat(waiting)];
      const end = lengthBytes + Buffer.from(waiting[0].buffer, waiting[0].byteOffset).readUInt32LE();
      if (end > lengthBytes + largestBytes) {
        [waiting, waitingBytes] = [[], 0];
        onMessage(undefined);
        return;
      }
      if (waitingBytes < end) return;
      const bytes = Buffer.concat(waiting);
      waiting = [bytes.subarray(end)];
      waitingBytes -= end;
      onMessage(decode(bytes.subarray(lengthBytes, end)));
    }
  };
}

function decode(content: Uint8Array): unknown {
  try {
    return deserialize(content);
  } catch {
    return undefined;
  }
}

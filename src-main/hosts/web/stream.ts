/** The event stream of one window, as server-sent events: `ready` with the number of the last event, then batches. */
import type { HubEvent } from '../../contract/run-state.ts';
import type { RunHub } from '../run-hub.ts';

/** A window that does not read is cut off; it comes back, sees the gap, and asks for a snapshot. */
const mostWaitingBytes = 8 * 1024 * 1024;
/** Keeps tunnels open that close silent connections. */
const heartbeatMilliseconds = 15_000;

export function eventStream(hub: RunHub): ReadableStream<Uint8Array<ArrayBuffer>> {
  const encoder = new TextEncoder();
  let end = (): void => undefined;
  return new ReadableStream<Uint8Array<ArrayBuffer>>(
    {
      start(controller) {
        const send = (text: string): void => {
          if ((controller.desiredSize ?? 0) <= 0) {
            end();
            controller.close();
          } else controller.enqueue(encoder.encode(text));
        };
        const sendBatch = (events: readonly HubEvent[]): void => send(`data: ${JSON.stringify(events)}\n\n`);
        send(`retry: 500\nevent: ready\ndata: ${hub.snapshot().sequence}\n\n`);
        const unsubscribe = hub.subscribe(sendBatch);
        const heartbeat = setInterval(() => send(': \n\n'), heartbeatMilliseconds);
        heartbeat.unref();
        end = () => {
          unsubscribe();
          clearInterval(heartbeat);
        };
      },
      cancel: () => end(),
    },
    { highWaterMark: mostWaitingBytes, size: (chunk) => chunk.byteLength },
  );
}

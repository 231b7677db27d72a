/** Who works for a queue: each worker keeps a note about itself in Redis, which fades when it falls silent. */
import { z } from 'zod';
import type { Connection } from './queue.ts';

export const hostSchema = z.strictObject({
  id: z.string(),
  version: z.string(),
  host: z.string(),
  device: z.string(),
  backend: z.string(),
  memoryBytes: z.number(),
  queues: z.array(z.string()),
  startedAt: z.string(),
  /** Points finished since then. */
  done: z.number().int(),
  /** Over the last minute. */
  pointsPerMinute: z.number(),
  /** What it works on: level and phase. */
  doing: z.string().optional(),
});
export type Host = z.infer<typeof hostSchema>;

const keyOf = (id: string): string => `fastmqa:host:${id}`;
const fadesAfterSeconds = 15;

export async function announce({ redis }: Connection, host: Host): Promise<void> {
  await redis.set(keyOf(host.id), JSON.stringify(host), 'EX', fadesAfterSeconds);
}

export async function withdraw({ redis }: Connection, id: string): Promise<void> {
  await redis.del(keyOf(id));
}

/** Those heard of in the last 15 seconds, by host and device. */
export async function listHosts({ redis }: Connection): Promise<Host[]> {
  const keys: string[] = [];
  for await (const found of redis.scanStream({ match: keyOf('*'), count: 1000 })) keys.push(...(found as string[]));
  if (keys.length === 0) return [];
  const notes = await redis.mget([...new Set(keys)]);
  return notes
    .flatMap((note) => {
      if (note === null) return [];
      const host = hostSchema.safeParse(JSON.parse(note));
      return host.success ? [host.data] : []; // of another version: it says nothing that we could show
    })
    .sort((a, b) => `${a.host} ${a.device} ${a.id}`.localeCompare(`${b.host} ${b.device} ${b.id}`));
}

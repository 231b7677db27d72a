/** Who works for a queue: each worker keeps a note about itself in Redis, which fades when it falls silent. */
import { z } from 'zod';
import type { FleetView } from '../contract/places.ts';
import { type Connection, keyPrefix } from './queue.ts';

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

/** Undefined for a note that is gone, of another version, or none at all: it says nothing that we could show. */
export function hostOf(note: string | null): Host | undefined {
  try {
    return hostSchema.safeParse(JSON.parse(note ?? 'null')).data;
  } catch {
    return undefined;
  }
}

/** Those heard of in the last 15 seconds, by host and device. */
export async function listHosts({ redis }: Connection): Promise<Host[]> {
  const keys: string[] = [];
  for await (const found of redis.scanStream({ match: keyOf('*'), count: 1000 })) keys.push(...(found as string[]));
  if (keys.length === 0) return [];
  const notes = await redis.mget([...new Set(keys)]);
  return notes
    .flatMap((note) => hostOf(note) ?? [])
    .sort((a, b) => `${a.host} ${a.device} ${a.id}`.localeCompare(`${b.host} ${b.device} ${b.id}`));
}

/** Points that wait and points at work, of whoever submitted them: each queue that ever was has a `meta` key. */
async function countPoints({ redis }: Connection): Promise<{ waiting: number; atWork: number }> {
  const names = new Set<string>();
  for await (const found of redis.scanStream({ match: `${keyPrefix}:*:meta`, count: 1000 }))
    for (const key of found as string[]) names.add(key.slice(0, -'meta'.length));
  const lists = [...names].flatMap((name) => [`${name}wait`, `${name}active`]);
  const lengths = await Promise.all(lists.map((list) => redis.llen(list)));
  const sumOf = (rest: number): number => lengths.reduce((sum, n, i) => (i % 2 === rest ? sum + n : sum), 0);
  return { waiting: sumOf(0), atWork: sumOf(1) };
}

/** @param version of this program: workers of another do not count */
export async function viewFleet(connection: Connection, version: string): Promise<Omit<FleetView, 'queue'>> {
  const hosts = (await listHosts(connection)).map(({ queues: _, ...host }) => ({
    ...host,
    fits: host.version === version,
  }));
  const counts = await countPoints(connection);
  const pointsPerMinute = hosts.reduce((sum, host) => sum + (host.fits ? host.pointsPerMinute : 0), 0);
  const left = counts.waiting + counts.atWork;
  const eta = left === 0 ? { etaSeconds: 0 } : pointsPerMinute > 0 ? { etaSeconds: (60 * left) / pointsPerMinute } : {};
  return { hosts, ...counts, pointsPerMinute, ...eta };
}

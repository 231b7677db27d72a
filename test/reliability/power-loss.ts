/** The life of a session with the power going at any step: what was acknowledged must be there afterwards, as it was. */
import { createHash } from 'node:crypto';
import { InputError } from '../../src-main/contract/input-error.ts';
import type { Point } from '../../src-main/contract/metrics.ts';
import { appendRecord, createRecording, type Recording } from '../../src-main/sessions/recording.ts';
import { parseSession, resumeRecording } from '../../src-main/sessions/recovery.ts';
import { type FileSystem, writeWhole } from '../../src-main/sessions/storage.ts';
import { environment, header } from '../fakes/points.ts';
import { RecordedFiles, type Taking } from '../fakes/recorded-files.ts';
import { Chance } from './effort.ts';

const session = '/s/a.fmqa';
const save = '/s/report.csv';

/** A promise that was kept to the caller before step `after`. */
interface Told {
  readonly after: number;
  readonly pointId?: string;
  /** The save that was acknowledged, or begun. */
  readonly saved?: { readonly bytes: Buffer; readonly isDone: boolean };
}

export interface PowerLoss {
  readonly states: number;
  /** The first few, in words. */
  readonly broken: readonly string[];
}

/**
 * @param through puts something between the product and the disk, a fault for example
 * @param states how many different states of the disk to look at
 */
export async function losePower(
  point: Point,
  states: Iterable<number>,
  through: (files: FileSystem) => FileSystem = (files) => files,
): Promise<PowerLoss> {
  const seen = new Set<string>();
  const broken: string[] = [];
  const wanted = states[Symbol.iterator]();
  let isOver = wanted.next().done;
  for (let seed = 1; !isOver && broken.length < 5; seed += 1) {
    const chance = new Chance(seed);
    let disk: ReadonlyMap<string, Buffer> = new Map();
    let promised = new Map<string, string>();
    for (let life = 0; life < 3 && !isOver; life += 1) {
      const files = new RecordedFiles(disk);
      const told: Told[] = [...promised.keys()].map((pointId) => ({ after: 0, pointId }));
      const points = new Map(promised);
      told.push(
        ...(await exercise({ files, through: through(files), chance, point, life: `${seed}-${life}`, points })),
      );
      let last = disk;
      for (let count = 0; count <= files.steps.length && !isOver; count += 1) {
        for (const take of takings(chance)) {
          const state = files.crash(count, take);
          const kept = told.filter(({ after }) => after <= count);
          const key = hash(state, kept.length);
          if (seen.has(key)) continue;
          seen.add(key);
          const fault = faultOf(state, kept, told, points, disk.get(save));
          if (fault) broken.push(`seed ${seed}, life ${life}, after step ${count}: ${fault}`);
          isOver = wanted.next().done;
          if (isOver) break;
          last = state;
        }
      }
      // The next life begins where this one was cut off.
      disk = last;
      promised = pointsOn(last) ?? new Map();
    }
  }
  return { states: seen.size, broken };
}

/** Nothing, everything, then parts. */
function* takings(chance: Chance): Generator<Taking> {
  yield () => false;
  yield () => true;
  for (const share of [0.2, 0.5, 0.5, 0.5, 0.8]) yield () => chance.isTrue(share);
}

interface Exercise {
  readonly files: RecordedFiles;
  readonly through: FileSystem;
  readonly chance: Chance;
  readonly point: Point;
  readonly life: string;
  /** Filled with every point that was handed over, acknowledged or not. */
  readonly points: Map<string, string>;
}

async function exercise({ files, through, chance, point, life, points }: Exercise): Promise<Told[]> {
  const told: Told[] = [];
  const recording = await openSession(through);
  for (let i = 0; i < 2 + chance.below(4); i += 1) {
    const reason = 'x'.repeat(chance.one([0, 10, 700]));
    const { id: _, config, outcome, ...figures } = point;
    // In the order of the schema, so that rows can be compared as text.
    const row: Point = { id: `${life}-${i}`, config, outcome, reason, ...figures };
    points.set(row.id, JSON.stringify(row));
    await recording.append({ kind: 'point', point: row });
    told.push({ after: files.steps.length, pointId: row.id });
    if (chance.isTrue(0.3)) {
      const bytes = Buffer.from(`${life} save ${i} `.repeat(1 + chance.below(100)));
      told.push({ after: 0, saved: { bytes, isDone: false } });
      await writeWhole(save, bytes, through);
      told.push({ after: files.steps.length, saved: { bytes, isDone: true } });
    }
  }
  await recording.close();
  if (chance.isTrue()) await appendRecord(session, { kind: 'labelled', name: life }, through);
  return told;
}

async function openSession(files: FileSystem): Promise<Recording> {
  try {
    return (await resumeRecording(session, environment, files)).recording;
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    // Nothing was acknowledged yet: a user would delete what is there.
    await files.remove(session).catch(() => undefined);
    return createRecording(session, header, files);
  }
}

function pointsOn(state: ReadonlyMap<string, Buffer>): Map<string, string> | undefined {
  const bytes = state.get(session);
  if (!bytes) return undefined;
  try {
    const { points } = parseSession(bytes, session);
    return new Map([...points].map(([id, row]) => [id, JSON.stringify(row)]));
  } catch (error) {
    if (error instanceof InputError) return undefined;
    throw error;
  }
}

function faultOf(
  state: ReadonlyMap<string, Buffer>,
  kept: readonly Told[],
  told: readonly Told[],
  points: ReadonlyMap<string, string>,
  savedBefore: Buffer | undefined,
): string | undefined {
  const read = pointsOn(state);
  for (const { pointId } of kept) {
    if (pointId !== undefined && !read?.has(pointId)) return `point ${pointId} is lost`;
  }
  for (const [id, row] of read ?? []) if (points.get(id) !== row) return `point ${id} is not what was recorded`;
  const now = state.get(save);
  const lastDone = kept.findLastIndex(({ saved }) => saved?.isDone);
  const mayBe = told
    .slice(lastDone === -1 ? 0 : told.indexOf(kept[lastDone]))
    .flatMap(({ saved }) => saved?.bytes ?? []);
  if (lastDone === -1 && savedBefore) mayBe.push(savedBefore);
  if (now === undefined) return lastDone === -1 && !savedBefore ? undefined : 'the saved file is gone';
  return mayBe.some((bytes) => bytes.equals(now)) ? undefined : 'the saved file is neither the old one nor the new one';
}

function hash(state: ReadonlyMap<string, Buffer>, told: number): string {
  const sum = createHash('sha1').update(String(told));
  for (const [name, content] of [...state].sort(([a], [b]) => (a < b ? -1 : 1)))
    sum.update(name).update('\0').update(content);
  return sum.digest('base64');
}

/** From the words of a user – a name, a file, `AXIS=VALUES` – to a sweep. */
import { expected } from '../contract/input-error.ts';
import type { LatentAttention } from '../contract/model.ts';
import { withNearest } from '../contract/nearest.ts';
import {
  type AxisValue,
  type Grid,
  type Measuring,
  measuringSchema,
  type Sweep,
  sweepSchema,
} from '../contract/sweep.ts';
import { checkAxisValue, parseValues } from '../engine/axes.ts';
import { builtinModelShapes } from '../engine/builtin-models.ts';
import { levelNames } from '../engine/levels.ts';
import { resolveMeasuring } from '../engine/plan.ts';
import { sweeps } from '../engine/sweeps.ts';
import { findModel } from '../models/find.ts';
import { readSession } from '../sessions/recovery.ts';
import { readWhole } from '../sessions/storage.ts';
import { builtinFolder } from './folders.ts';

export interface SweepChanges {
  /** In place of the sweep's own. */
  readonly name?: string;
  /** `AXIS=VALUES`, as {@link parseValues} reads them. */
  readonly set?: readonly string[];
  readonly backend?: string;
  readonly seed?: number;
  readonly measuring?: Partial<Measuring>;
}

/**
 * @param source name of a sweep or level, FILE.json, `-` for JSON on stdin, or a session; absent: what `set` says, or else
 * the sweep `quick`
 * @throws InputError
 */
export async function readSweep(source: string | undefined, changes: SweepChanges = {}): Promise<Sweep> {
  const values = axesOf(changes);
  const isWritten = source === undefined && values.size > 0;
  const sweep = isWritten ? sweepAsWritten(values) : withAxes(await findSweep(source ?? 'quick'), values);
  const measured = withMeasuring(await withModelShapes(sweep), changes.measuring ?? {});
  if (changes.name === undefined) return measured;
  const name = sweepSchema.shape.name.safeParse(changes.name);
  if (!name.success) throw expected('a name of 1 to 200 characters', '--name', changes.name);
  return { ...measured, name: name.data };
}

/** A sweep over a model of the user's says its shape, so that it can be planned, resumed and read anywhere. */
async function withModelShapes(sweep: Sweep): Promise<Sweep> {
  const complete = async <G extends Grid>(grid: G): Promise<G> => {
    const foreign = (grid.axes.model ?? []).map(String).filter((name) => !(name in builtinModelShapes));
    if (foreign.length === 0) return grid;
    if (grid.axes.model.length > 1) throw expected('one model where it is a folder', 'model', foreign.join(', '));
    const { config } = await findModel(foreign[0], builtinFolder);
    const shape = {
      ...{ hiddenDim: [config.hiddenDim], heads: [config.heads], headDim: [config.headDim] },
      ...{ referenceKvHeads: [config.kvHeads], layers: [config.layers.length] },
      ...(config.mla && latentShape(config.mla)),
      ropeTheta: [config.layers[0]?.rope?.theta ?? 0],
    };
    const { model, level, ...rest } = grid.axes;
    return { ...grid, axes: { model, ...shape, ...rest, ...(level && { level }) } };
  };
  const also = sweep.also && (await Promise.all(sweep.also.map(complete)));
  return { ...(await complete(sweep)), ...(also && { also }) };
}

const latentShape = ({ rank, ropeDim, valueDim }: LatentAttention) => ({
  ...{ latentDim: [rank], ropeDim: [ropeDim], valueDim: [valueDim] },
});

/** Axes in the order given, levels last. */
function sweepAsWritten(values: ReadonlyMap<string, AxisValue[]>): Sweep {
  const { level = ['baseline'], ...axes } = Object.fromEntries(values);
  return { name: 'baseline', axes: { ...('phase' in axes ? {} : { phase: ['prefill', 'decode'] }), ...axes, level } };
}

async function findSweep(source: string): Promise<Sweep> {
  if (Object.hasOwn(sweeps, source)) return sweeps[source];
  if (levelNames.some((name) => name === source))
    return { name: source, axes: { phase: ['prefill', 'decode'], level: [source] } };
  if (source === '-') return asSweep(await readStdin(), 'stdin');
  if (source.endsWith('.json')) return asSweep(await readWhole(source), source);
  if (source.endsWith('.fmqa')) return (await readSession(source)).header.sweep;
  throw expected(
    `one of ${Object.keys(sweeps).join(', ')}, a level, FILE.json, - or a session FILE.fmqa`,
    'sweep',
    withNearest([...Object.keys(sweeps), ...levelNames], source),
  );
}

async function readStdin(): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const part of process.stdin) parts.push(part);
  return Buffer.concat(parts);
}

function asSweep(bytes: Uint8Array, path: string): Sweep {
  const content = parseJson(bytes, path);
  const sweep = sweepSchema.safeParse(content);
  if (sweep.success) return sweep.data;
  const [issue] = sweep.error.issues;
  const where = issue.path.length > 0 ? `${issue.path.join('.')} of ${path}` : path;
  if (issue.code === 'unrecognized_keys') throw expected('the fields of a sweep', where, issue.keys.join(', '));
  const wanted = issue.path.length > 0 ? wantedIn(issue.message) : 'a sweep';
  const found: unknown = issue.path.reduce((at: unknown, key) => (at as Record<PropertyKey, unknown>)[key], content);
  throw expected(wanted ?? 'another value', where, found === undefined ? '' : JSON.stringify(found).slice(0, mostEcho));
}

/** Of a schema's complaint what it expects, where it says so. */
const wantedIn = (message: string): string | undefined => /expected (.*?)(, received .*)?$/.exec(message)?.[1];

/** Characters of a wrong value that are told again. */
const mostEcho = 60;

function parseJson(bytes: Uint8Array, path: string): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes)); // without the mark that editors of Windows begin a file with
  } catch (error) {
    throw expected('JSON', path, (error as Error).message);
  }
}

function axesOf({ set = [], backend, seed }: SweepChanges): Map<string, AxisValue[]> {
  const axes = new Map<string, AxisValue[]>();
  for (const assignment of set) {
    const [name, text] = assignment.split(/=(.*)/s);
    if (!name || text === undefined) throw expected('AXIS=VALUES', '--set', assignment);
    const values = parseValues(text, name);
    for (const value of values) checkAxisValue(name, value);
    axes.set(name, values);
  }
  if (backend !== undefined) axes.set('backend', [backend]);
  if (seed !== undefined) axes.set('seed', [seed]);
  for (const name of ['backend', 'seed']) for (const value of axes.get(name) ?? []) checkAxisValue(name, value);
  return axes;
}

/**
 * Lays axes over every grid. A further grid exists for the sake of its levels, so where levels are given it keeps
 * those of them that it has, and is left out if it has none.
 */
function withAxes(sweep: Sweep, values: ReadonlyMap<string, AxisValue[]>): Sweep {
  if (values.size === 0) return sweep;
  const levels = values.get('level');
  const also = (sweep.also ?? []).flatMap((grid) => {
    const kept = levels && grid.axes.level?.filter((level) => levels.includes(level));
    if (kept?.length === 0) return [];
    return [overlay(grid, kept ? new Map([...values, ['level', kept]]) : values)];
  });
  const { also: _, ...rest } = sweep;
  return { ...rest, ...overlay(sweep, values), ...(also.length > 0 ? { also } : {}) };
}

function overlay({ axes, zip }: Grid, values: ReadonlyMap<string, AxisValue[]>): Grid {
  // An axis that is set stands alone; the rest of its group still advances together.
  const groups = (zip ?? [])
    .map((group) => group.filter((name) => !values.has(name)))
    .filter(({ length }) => length > 1);
  // Neighbours are measured in turn: levels, which are to be compared, stay last.
  const { level, ...others } = { ...axes, ...Object.fromEntries(values) };
  return { axes: level ? { ...others, level } : others, ...(groups.length > 0 ? { zip: groups } : {}) };
}

function withMeasuring(sweep: Sweep, changes: Partial<Measuring>): Sweep {
  if (Object.keys(changes).length === 0) return sweep;
  const { minSeconds, maxSeconds, minSamples, maxSamples } = resolveMeasuring({
    ...sweep,
    measuring: { ...sweep.measuring, ...changes },
  });
  if (changes.maxSeconds !== undefined && changes.maxSeconds < minSeconds)
    throw expected(`at least minSeconds, ${minSeconds},`, 'maxSeconds', changes.maxSeconds);
  if (changes.maxSamples !== undefined && changes.minSamples !== undefined && changes.maxSamples < minSamples)
    throw expected(`at least minSamples, ${minSamples},`, 'maxSamples', changes.maxSamples);
  const measuring = {
    ...sweep.measuring,
    ...changes,
    ...(minSeconds > maxSeconds ? { maxSeconds: minSeconds } : {}),
    ...(minSamples > maxSamples && changes.maxSamples === undefined ? { maxSamples: minSamples } : {}),
  };
  const checked = measuringSchema.partial().safeParse(measuring);
  if (checked.success) return { ...sweep, measuring: checked.data };
  const [{ path, message }] = checked.error.issues;
  const name = String(path[0]);
  throw expected(wantedIn(message) ?? message, name, measuring[name as keyof Measuring]);
}

/** Levels of a sweep side by side: one row a level, or one for each thing of a level that would be wrong to mix. */
import type { Metric, Point } from '../../src-main/contract/metrics.ts';
import { type Axis, axisFor, type Scale } from './axis.ts';
import { deviceField, nameInWords, readField, tellingFields } from './fields.ts';
import { judgedBy, type Kind } from './kind.ts';
import { metricOf } from './metric.ts';

export interface LevelBar {
  /** Level, and what tells this row from others of the level: unique. */
  readonly label: string;
  readonly level: string;
  /** Median over the points of the row; undefined where none has the metric. */
  readonly value: number | undefined;
  /** Where the bar ends: never outside the axis. */
  readonly end: number;
  /** Points behind the median. */
  readonly ids: readonly string[];
}

export interface LevelBars {
  readonly metric: Metric;
  readonly axis: Axis;
  readonly bars: readonly LevelBar[];
}

/** The three numbers of every point. */
export const headlineMetrics = (kind: Kind): readonly string[] =>
  kind === 'capacity'
    ? ['plannedSequences', 'reachedSequences', 'sequenceBytes']
    : ['multiplierVsF32Mha', 'tokensPerSecond', judgedBy[kind]];

/** More rows than this are too many to compare: then a row is a level, and a bar the median of all its points that may be mixed. */
const mostRows = 24;

/** Level → fields that give its points rows of their own: the model, where there are several, and what else varies. */
export type RowFields = ReadonlyMap<string, readonly string[]>;

/** A median over several of these would be a figure of nothing. */
const neverMixed: readonly string[] = ['model', deviceField, 'phase'];

/** Where that would be too many rows: none but those that are never mixed. */
export function rowFields(points: readonly Point[]): RowFields {
  const isOneModel = points.every(({ config }) => config.model === points[0].config.model);
  const fields = new Map<string, readonly string[]>();
  for (const [level, ofLevel] of groupedBy(points, ({ config }) => config.level)) {
    const telling = tellingFields(ofLevel, 'level').filter((field) => field !== 'model');
    fields.set(level, isOneModel ? telling : ['model', ...telling]);
  }
  const rows = new Set<string>();
  for (const point of points) {
    rows.add(labelOf(point, fields));
    if (rows.size > mostRows) return fewFields(fields);
  }
  return fields;
}

const fewFields = (fields: RowFields): RowFields =>
  new Map([...fields].map(([level, of]) => [level, of.filter((field) => neverMixed.includes(field))]));

const labelOf = (point: Point, fields: RowFields): string => nameInWords(point, fields.get(point.config.level) ?? []);

function groupedBy(points: readonly Point[], keyOf: (point: Point) => string): Map<string, Point[]> {
  const groups = new Map<string, Point[]>();
  for (const point of points) {
    const key = keyOf(point);
    const group = groups.get(key);
    if (group) group.push(point);
    else groups.set(key, [point]);
  }
  return groups;
}

export interface LevelBarsOptions {
  /** Undefined: the usual scale of the metric. */
  readonly scaleOf?: (metric: string) => Scale | undefined;
  /** Medians of other sessions, for which the axes have room too. */
  readonly beside?: readonly (readonly LevelBars[])[];
  /** As {@link rowFields} gives them; none = a row a level. */
  readonly fields?: RowFields;
}

export function levelBarsOf(
  points: readonly Point[],
  metricIds: readonly string[],
  levels: readonly string[],
  { scaleOf, beside = [], fields = new Map() }: LevelBarsOptions = {},
): LevelBars[] {
  const byLabel = groupedBy(points, (point) => labelOf(point, fields));
  const place = (level: string): number => levels.indexOf(level);
  const known = [...byLabel]
    .map(([label, ofRow]) => ({ label, level: ofRow[0].config.level, ofRow }))
    .filter(({ level }) => place(level) >= 0);
  /** Rows of a level stand by the numbers that tell them apart; words in the order measured. */
  const rank = (point: Point, field: string): number => {
    const value = readField(point, field);
    return typeof value === 'number' ? value : known.findIndex(({ ofRow }) => readField(ofRow[0], field) === value);
  };
  const present = [...known].sort((a, b) => {
    const apart = (fields.get(a.level) ?? []).map((field) => rank(a.ofRow[0], field) - rank(b.ofRow[0], field));
    return place(a.level) - place(b.level) || apart.find((difference) => difference !== 0) || 0;
  });
  return metricIds.map((id, column) => {
    const metric = metricOf(id);
    const rows = present.map(({ label, level, ofRow }) => {
      const having = ofRow.filter((point) => metric.read(point) !== undefined);
      const value = medianOf(having.map((point) => metric.read(point) as number));
      return { label, level, value, ids: having.map((point) => point.id) };
    });
    const axis = axisFor(
      metric,
      [...rows, ...beside.flatMap((others) => others[column].bars)].flatMap(({ value }) => value ?? []),
      scaleOf?.(id),
    );
    const bars = rows.map((row) => ({ ...row, end: Math.max(row.value ?? axis.domain[0], axis.domain[0]) }));
    return { metric, axis, bars };
  });
}

export function medianOf(values: readonly number[]): number | undefined {
  if (values.length === 0) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Points for other programs and for people. Columns derive from the contract's metrics and fields. */
import { type Cell, toCsv } from '../../src-renderer/series/csv.ts';
import { formatMetric } from '../contract/format.ts';
import { metrics, type Point } from '../contract/metrics.ts';
import type { Environment } from '../contract/session.ts';
import { pointConfigSchema } from '../contract/sweep.ts';
import { shownFields, shownMetrics } from './shown.ts';

export type TextFormat = 'csv' | 'json' | 'md';

export interface Exportable {
  readonly environment: Environment;
  readonly points: readonly Point[];
}

export function exportPoints(content: Exportable, format: TextFormat): string {
  switch (format) {
    case 'csv':
      return toCsvText(content.points);
    case 'json':
      return `${JSON.stringify({ environment: content.environment, points: content.points }, null, 2)}\n`;
    case 'md':
      return toMarkdown(content);
  }
}

export interface Column {
  readonly name: string;
  readonly read: (point: Point) => Cell;
}

const configColumns: readonly Column[] = (Object.keys(pointConfigSchema.shape) as (keyof Point['config'])[]).map(
  (name) => ({
    name,
    read: (point) => point.config[name],
  }),
);

/** Raw numbers, units in the names; an empty cell means "not applicable". */
export const dataColumns: readonly Column[] = [
  { name: 'id', read: (point) => point.id },
  ...configColumns,
  { name: 'machine', read: (point) => point.device?.host },
  { name: 'device', read: (point) => point.device?.name },
  { name: 'outcome', read: (point) => point.outcome },
  { name: 'reason', read: (point) => point.reason },
  ...metrics.map(({ id, read }) => ({ name: id, read })),
  { name: 'grade', read: (point) => point.error?.grade },
  { name: 'flags', read: (point) => point.throughput?.flags.join(' ') },
  { name: 'controlZeroOutput', read: (point) => point.controls?.zeroOutput },
  { name: 'controlUniformAttention', read: (point) => point.controls?.uniformAttention },
  { name: 'controlIndependentLayer', read: (point) => point.controls?.independentLayer },
];

const toCsvText = (points: readonly Point[]): string =>
  toCsv(
    dataColumns.map(({ name }) => name),
    points.map((point) => dataColumns.map(({ read }) => read(point))),
  );

function toMarkdown({ environment, points }: Exportable): string {
  const fields = shownFields(points);
  const shown = shownMetrics(points);
  const header = [...fields.map(({ name }) => name), ...shown.map(({ label }) => label), 'grade', 'outcome'];
  const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll(/\s+/g, ' ');
  const rows = points.map((point) => [
    ...fields.map(({ read }) => String(read(point) ?? '')),
    ...shown.map(({ read, unit }) => {
      const value = read(point);
      return value === undefined ? '' : formatMetric(value, unit);
    }),
    point.error?.grade ?? '',
    point.reason === undefined ? point.outcome : `${point.outcome}: ${point.reason}`,
  ]);
  const lines = [header, header.map(() => '---'), ...rows].map((row) => `| ${row.map(cell).join(' | ')} |`);
  return [...lines, '', ...controlLines(points), machineLine(environment), ''].join('\n');
}

/** What no method should resemble: attention-spec C. */
function controlLines(points: readonly Point[]): string[] {
  const controls = points.find((point) => point.controls)?.controls;
  if (!controls) return [];
  const { zeroOutput, uniformAttention, independentLayer } = controls;
  return [
    `Controls, relative L2: all-zero output ${zeroOutput.toFixed(2)}, uniform attention ${uniformAttention.toFixed(2)}, an independent layer ${independentLayer.toFixed(2)}.`,
    '',
  ];
}

const machineLine = (e: Environment): string =>
  `Measured on ${e.cpu}, ${e.threads} threads, ${e.instructionSet}, ${e.os}, FastMQA ${e.fastmqaVersion}, ${e.startedAt}.`;

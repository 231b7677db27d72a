/** The columns of the CSV with their types, one row a point, and the raw samples beside them. */
import { type ColumnSource, parquetWriteBuffer } from 'hyparquet-writer';
import type { Point } from '../contract/metrics.ts';
import { type Column, dataColumns } from './export.ts';

export function toParquet(points: readonly Point[]): Uint8Array {
  const columnData = dataColumns.flatMap((column) => columnOf(column, points));
  // Repeated values have no simple column type; as JSON every reader can take them apart.
  const samples: ColumnSource = {
    name: 'samplesSeconds',
    type: 'STRING',
    nullable: true,
    data: points.map(({ samplesSeconds }) => (samplesSeconds ? JSON.stringify(samplesSeconds) : null)),
  };
  return new Uint8Array(parquetWriteBuffer({ columnData: [...columnData, samples] }));
}

/** A column that no point fills has no type, and is left out; null means "not applicable". */
function columnOf({ name, read }: Column, points: readonly Point[]): ColumnSource[] {
  const cells = points.map((point) => read(point) ?? null);
  const types = new Set(cells.flatMap((cell) => (cell === null ? [] : [typeof cell])));
  if (types.size === 0) return [];
  if (types.size > 1)
    return [{ name, type: 'STRING', nullable: true, data: cells.map((cell) => cell && String(cell)) }];
  // Doubles throughout: what is a whole number in one session may not be in the next, and columns should keep their type.
  const type = types.has('number') ? 'DOUBLE' : types.has('boolean') ? 'BOOLEAN' : 'STRING';
  return [{ name, type, nullable: true, data: cells }];
}

/** Rows and columns of a table: their order, and the same as text for other programs and for people. */
import { type Cell, toCsv } from './csv.ts';

export interface Column<Row> {
  readonly id: string;
  readonly read: (row: Row) => string | number | undefined;
}

/** A column as it is shown and copied. */
export interface ShownColumn<Row> extends Column<Row> {
  /** At its head. */
  readonly label: string;
  /** Where there is room for more words. */
  readonly title: string;
  /** What the choice of columns lists it under. */
  readonly group: string;
  readonly pixels: number;
  /** Figures end below each other. */
  readonly isFigure: boolean;
  readonly show: (row: Row) => string;
}

/** Stable; what a column does not apply to stands last in either direction. */
export function sortRows<Row>(rows: readonly Row[], { read }: Column<Row>, descending: boolean): Row[] {
  const sign = descending ? -1 : 1;
  return rows
    .map((row) => ({ row, value: read(row) }))
    .sort((a, b) => {
      if (a.value === undefined || b.value === undefined)
        return Number(a.value === undefined) - Number(b.value === undefined);
      if (typeof a.value === 'number' && typeof b.value === 'number') return sign * (a.value - b.value);
      return sign * String(a.value).localeCompare(String(b.value));
    })
    .map(({ row }) => row);
}

/** Raw numbers under the ids of the columns, which carry units. */
export const csvOfTable = <Row>(rows: readonly Row[], columns: readonly ShownColumn<Row>[]): string =>
  toCsv(
    columns.map(({ id }) => id),
    rows.map((row) => columns.map(({ read }): Cell => read(row))),
  );

/** As it is shown, rounded and with units. */
export function markdownOfTable<Row>(rows: readonly Row[], columns: readonly ShownColumn<Row>[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|').replaceAll(/\s+/g, ' ')).join(' | ')} |\n`;
  return [
    line(columns.map(({ label }) => label)),
    line(columns.map(({ isFigure }) => (isFigure ? '--:' : '---'))),
    ...rows.map((row) => line(columns.map(({ show }) => show(row)))),
  ].join('');
}

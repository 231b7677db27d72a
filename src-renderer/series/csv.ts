/** Rows as RFC 4180 text. */
export type Cell = string | number | boolean | undefined;

export function toCsv(header: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const quote = (cell: Cell): string => {
    const text = cell === undefined ? '' : String(cell);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [header, ...rows].map((row) => `${row.map(quote).join(',')}\r\n`).join('');
}

/**
 * Tables and paragraphs in the width there is. Elsewhere than in a terminal a table has one line a row, however long. In a terminal
 * that is too narrow for it texts are broken at blanks, and columns that still do not fit stand in a further part below, beside
 * the columns that say what a row is about; where those take most of the width, they share one.
 */

export interface Table {
  /** One or more lines, one cell a column. */
  readonly headings: readonly (readonly string[])[];
  /** A letter a column: 'l' text, 'r' numbers; a capital: not to be torn from the column before it. */
  readonly align: string;
  readonly sections: readonly Section[];
  /** So many columns say what a row is about (default: 1); they are in every part. */
  readonly keys?: number;
  /** The column that is the same in a whole section: sections are ruled off, and where it does not fit it is their title instead. */
  readonly titleColumn?: number;
}

export interface Section {
  readonly rows: readonly (readonly string[])[];
}

interface Column {
  readonly role: 'key' | 'title' | 'value';
  readonly heads: readonly string[];
  /** By section and row. */
  readonly cells: readonly (readonly string[])[];
  readonly isNumber: boolean;
  readonly isBound: boolean;
  readonly natural: number;
  /** What it can do with: numbers are never broken, and words only where a terminal is narrower than one. */
  readonly least: number;
}

const gap = 2;
/** Of rules and paragraphs elsewhere than in a terminal, and at most. */
const usualWidth = 150;
/** Texts are not broken into narrower columns than this, nor headings of numbers. */
const narrowest = { text: 20, number: 6 } as const;

/** Of the terminal that results go to; Infinity: they go elsewhere. */
export const terminalWidth = (): number =>
  process.stdout.isTTY ? process.stdout.columns || 80 : Number.POSITIVE_INFINITY;

/** What is said once, broken at blanks where a terminal ends. */
export const prose = (text: string): string[] => broken(text, terminalWidth());

/** What the columns of a table mean: a paragraph everywhere. */
export const legend = (text: string): string[] => broken(text, Math.min(terminalWidth(), usualWidth));

/** A plain table: its first row is its heading. */
export const columns = (rows: readonly (readonly string[])[], align: string, keys = 1): string[] =>
  tableLines({ headings: rows.slice(0, 1), sections: [{ rows: rows.slice(1) }], align, keys });

/** Columns without any entry are left out. */
export function tableLines(table: Table, width = terminalWidth()): string[] {
  const isRuled = table.titleColumn !== undefined;
  const all = columnsOf(table).filter(({ role, cells }) => role === 'key' || cells.flat().some(Boolean));
  if (spanOf(all, 'natural') <= width) return partLines(all, isRuled ? [] : undefined, width);
  const titles = all.find(({ role }) => role === 'title')?.cells.map(([first = '']) => first);
  const key = narrowed(
    all.filter(({ role }) => role === 'key'),
    width,
  );
  const values = all.filter(({ role }) => role === 'value');
  return partsOf(key, values, width).flatMap((some, i) => [
    ...(i > 0 ? [''] : []),
    ...partLines([...key, ...some], titles, width),
  ]);
}

function columnsOf({ headings, sections, align, keys = 1, titleColumn }: Table): Column[] {
  return [...align].map((letter, i) => {
    const heads = headings.map((line) => line[i] ?? '');
    const cells = sections.map(({ rows }) => rows.map((row) => row[i] ?? ''));
    const natural = longest([...heads, ...cells.flat()]);
    const isNumber = letter.toLowerCase() === 'r';
    const unbroken = [...heads.flatMap(wordsOf), ...(isNumber ? cells.flat() : cells.flat().flatMap(wordsOf))];
    return {
      role: i === titleColumn ? 'title' : i < keys ? 'key' : 'value',
      heads,
      cells,
      isNumber,
      isBound: letter !== letter.toLowerCase(),
      natural,
      least: Math.max(longest(unbroken), Math.min(natural, narrowest[isNumber ? 'number' : 'text'])),
    };
  });
}

const longest = (texts: readonly string[]): number => Math.max(0, ...texts.map(({ length }) => length));

const spanOf = (list: readonly Column[], of: 'natural' | 'least'): number =>
  list.reduce((sum, column) => sum + column[of], gap * (list.length - 1));

/** Keys that leave less than half of the width to what they are the keys of: all but the first stand in one column, as words. */
function narrowed(keys: readonly Column[], width: number): readonly Column[] {
  if (keys.length < 3 || spanOf(keys, 'least') <= width / 2) return keys;
  const [first, ...others] = keys;
  const together = (texts: readonly string[]): string => texts.filter(Boolean).join(' ');
  const heads = first.heads.map((_, i) => together(others.map((column) => column.heads[i])));
  const cells = first.cells.map((rows, s) => rows.map((_, r) => together(others.map((column) => column.cells[s][r]))));
  const natural = longest([...heads, ...cells.flat()]);
  const least = Math.max(longest([...heads, ...cells.flat()].flatMap(wordsOf)), Math.min(natural, narrowest.text));
  return [first, { role: 'key', heads, cells, isNumber: false, isBound: false, natural, least }];
}

/** As many columns a part as fit beside the key. */
function partsOf(key: readonly Column[], values: readonly Column[], width: number): Column[][] {
  const groups: Column[][] = [];
  for (const column of values) {
    if (column.isBound && groups.length > 0) groups[groups.length - 1].push(column);
    else groups.push([column]);
  }
  const parts: Column[][] = [];
  for (const group of groups) {
    const last = parts.at(-1);
    if (last && spanOf([...key, ...last, ...group], 'least') <= width) last.push(...group);
    else parts.push([...group]);
  }
  return parts;
}

/**
 * Rows of which this part holds no value are left out.
 * @param titles of the sections, which are then ruled off; an empty list: rules without titles
 */
function partLines(list: readonly Column[], titles: readonly string[] | undefined, width: number): string[] {
  const widths = fitted(list, width);
  const line = (cells: readonly (readonly string[])[]): string[] =>
    Array.from({ length: Math.max(...cells.map(({ length }) => length)) }, (_, at) =>
      cells
        .map(({ [at]: text = '' }, i) => (list[i].isNumber ? text.padStart(widths[i]) : text.padEnd(widths[i])))
        .join(' '.repeat(gap))
        .trimEnd(),
    );
  // Headings stand on the row below them, rows hang from the one above.
  const headings = list.map((column, i) => column.heads.flatMap((text) => broken(text, widths[i])));
  const height = Math.max(...headings.map(({ length }) => length));
  const heads = line(headings.map((lines) => [...Array<string>(height - lines.length).fill(''), ...lines])).filter(
    Boolean,
  );
  const sections = list[0].cells.map((rows, s) =>
    rows.flatMap((_, r) => {
      const holdsNothing = list.every(({ role, cells }) => role !== 'value' || cells[s][r] === '');
      return holdsNothing ? [] : line(list.map(({ cells }, i) => broken(cells[s][r], widths[i])));
    }),
  );
  if (!titles) return [...heads, ...sections.flat()];
  const ruled = Math.min(usualWidth, width, longest([...heads, ...sections.flat()]));
  const rule = (title = ''): string => (title && `── ${title} `).padEnd(ruled, '─');
  return [...heads, ...sections.flatMap((lines, s) => [rule(titles[s]), ...lines]), rule()];
}

/** What is over goes to the texts that are broken most. */
function fitted(list: readonly Column[], width: number): number[] {
  if (spanOf(list, 'natural') <= width) return list.map(({ natural }) => natural);
  const widths = list.map(({ least }) => least);
  for (let over = width - spanOf(list, 'least'); over > 0; over -= 1) {
    const wants = list.map(({ natural }, i) => natural / widths[i]);
    widths[wants.indexOf(Math.max(...wants))] += 1;
  }
  return widths;
}

/** A dot that separates stays with what is before it. */
const wordsOf = (text: string): string[] => text.split(/ (?!·)/);

/** A word that is longer than a line is broken too. */
function broken(text: string, width: number): string[] {
  if (text.length <= width) return [text];
  const lines = [''];
  for (const word of wordsOf(text)) {
    const last = lines.length - 1;
    const longer = lines[last] === '' ? word : `${lines[last]} ${word}`;
    if (longer.length <= width) lines[last] = longer;
    else {
      if (lines[last] === '') lines.pop();
      for (let at = 0; at < word.length; at += width) lines.push(word.slice(at, at + width));
    }
  }
  return lines;
}

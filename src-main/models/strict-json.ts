/** JSON as a file format may use it: no duplicate keys, bounded depth, and integers only where they are written as such. */

/** A number that is no plain integer below 2^53: negative, with fraction or exponent, or too large. */
export class OddNumber {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
  toString(): string {
    return this.text;
  }
}

export type Json = string | number | boolean | null | OddNumber | Json[] | Map<string, Json>;

const number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const word = /true|false|null/y;
const space = /[ \t\n\r]*/y;
const words: Readonly<Record<string, Json>> = { true: true, false: false, null: null };

/** @throws SyntaxError with a clause that says what is wrong, and where. */
export function parseStrictJson(text: string, deepest: number): Json {
  let at = 0;

  const fail = (what: string): never => {
    throw new SyntaxError(`${what} at character ${at}`);
  };
  const match = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    at += found?.length ?? 0;
    return found;
  };
  /** Takes a punctuation mark, and the space around it, if it is there. */
  const take = (mark: string): boolean => {
    match(space);
    if (text[at] !== mark) return false;
    at += 1;
    match(space);
    return true;
  };

  function readString(): string {
    if (text[at] !== '"') fail('no string');
    let end = at;
    do end = text.indexOf('"', end + 1);
    while (end !== -1 && isEscaped(text, end));
    if (end === -1) fail('a string that does not end');
    try {
      const value = JSON.parse(text.slice(at, end + 1)) as string;
      at = end + 1;
      return /\p{Surrogate}/u.test(value) ? fail('half a surrogate pair') : value;
    } catch {
      return fail('no valid string');
    }
  }

  function readObject(depth: number): Map<string, Json> {
    const entries = new Map<string, Json>();
    if (take('}')) return entries;
    do {
      const key = readString();
      if (entries.has(key)) fail(`the key ${JSON.stringify(key.slice(0, 80))} twice`);
      if (!take(':')) fail('no colon after a key');
      entries.set(key, read(depth));
    } while (take(','));
    if (!take('}')) fail('an object that does not end');
    return entries;
  }

  function readList(depth: number): Json[] {
    const items: Json[] = [];
    if (take(']')) return items;
    do items.push(read(depth));
    while (take(','));
    if (!take(']')) fail('a list that does not end');
    return items;
  }

  function readNumber(): number | OddNumber {
    const literal = match(number) ?? fail('no value');
    const value = Number(literal);
    return /^\d+$/.test(literal) && Number.isSafeInteger(value) ? value : new OddNumber(literal);
  }

  function read(depth: number): Json {
    if (depth > deepest) fail(`nesting deeper than ${deepest}`);
    if (take('{')) return readObject(depth + 1);
    if (take('[')) return readList(depth + 1);
    if (text[at] === '"') return readString();
    const name = match(word);
    return name === undefined ? readNumber() : words[name];
  }

  const value = read(0);
  match(space);
  return at === text.length ? value : fail('something after the end');
}

function isEscaped(text: string, at: number): boolean {
  let first = at;
  while (text[first - 1] === '\\') first -= 1;
  return (at - first) % 2 === 1;
}

/**
 * The built-in corpus: bytes made by rule, so that nothing is borrowed, what each line asks for is known, and a model of a few
 * million parameters can learn it. A document is a list of lines that shares one small store of facts, which later lines ask for:
 * what a compressed cache forgets, shows.
 *
 *     @kx=72915            a fact: two letters, five digits
 *     ?kx=72915            a question for a fact of this document, and its answer
 *     copy qpd mzo|qpd mzo
 *     ([]{<>})
 *     37+58=95
 *     toru nase imo.       words of a fixed vocabulary, each likely to be followed by one of eight
 */

export type LineKind = 'fact' | 'question' | 'copy' | 'nesting' | 'arithmetic' | 'text';

export interface CorpusLine {
  readonly kind: LineKind;
  readonly text: string;
  /** Where the part begins that follows from what came before: an answer, a copy. The length of `text` where there is none. */
  readonly answerAt: number;
  /** Question: characters of the document from the end of the fact to the beginning of the question. */
  readonly distance?: number;
}

export interface CorpusDocument {
  /** `length` characters of ASCII, one token each. */
  readonly text: string;
  /** The lines that lie within `text` as a whole, each with the offset of its first character. */
  readonly lines: readonly (CorpusLine & { readonly at: number })[];
}

export const documentLength = 2048;

/** Share of the lines, in percent. */
const mixture: readonly (readonly [LineKind, number])[] = [
  ['fact', 22],
  ['question', 26],
  ['copy', 12],
  ['nesting', 10],
  ['arithmetic', 10],
  ['text', 20],
];

/** Random 32 bit integers by "sfc32" (public domain, C. Doty-Humphrey): the same on every machine. */
class Random {
  private a: number;
  private b = 0x9e3779b9;
  private c = 0x243f6a88;
  private counter = 1;

  constructor(seed: number) {
    this.a = seed >>> 0;
    for (let i = 0; i < 16; i++) this.next();
  }

  next(): number {
    const sum = (this.a + this.b + this.counter) | 0;
    this.counter = (this.counter + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = ((this.c << 21) | (this.c >>> 11)) + sum;
    this.c |= 0;
    return sum >>> 0;
  }

  /** Integer in [0, end). */
  below(end: number): number {
    return Math.floor((this.next() / 0x1_0000_0000) * end);
  }

  between(first: number, last: number): number {
    return first + this.below(last - first + 1);
  }

  pick<Item>(items: ArrayLike<Item>): Item {
    return items[this.below(items.length)] as Item;
  }

  letters(count: number): string {
    let text = '';
    for (let i = 0; i < count; i++) text += String.fromCharCode(97 + this.below(26));
    return text;
  }

  digits(count: number): string {
    let text = '';
    for (let i = 0; i < count; i++) text += String.fromCharCode(48 + this.below(10));
    return text;
  }
}

interface Vocabulary {
  readonly words: readonly string[];
  readonly followers: readonly (readonly number[])[];
}
let made: Vocabulary | undefined;

/** 512 words and, for each, the eight that may follow it; made when first asked for. */
function vocabulary(): Vocabulary {
  if (made) return made;
  const random = new Random(1);
  const syllable = () => random.pick('bdfgklmnprstvz') + random.pick('aeiou');
  const words: string[] = [];
  while (words.length < 512) {
    const word =
      Array.from({ length: random.between(1, 3) }, syllable).join('') + (random.below(3) ? '' : random.pick('nrs'));
    if (!words.includes(word)) words.push(word);
  }
  made = { words, followers: words.map(() => Array.from({ length: 8 }, () => random.below(512))) };
  return made;
}

const brackets = ['()', '[]', '{}', '<>'] as const;

function nesting(random: Random): { text: string; answerAt: number } {
  const length = 2 * random.between(6, 20);
  const open: string[] = [];
  let text = '';
  while (text.length < length) {
    const mustClose = open.length === length - text.length;
    if (open.length > 0 && (mustClose || open.length === 12 || random.below(2))) {
      text += open.pop();
    } else {
      const pair = random.pick(brackets);
      text += pair[0];
      open.push(pair[1] as string);
    }
  }
  // The last run of closing brackets follows from what came before.
  return { text, answerAt: text.length - (/[)\]}>]+$/.exec(text)?.[0].length ?? 0) };
}

function arithmetic(random: Random): { text: string; answerAt: number } {
  const [x, y] = [random.below(100), random.below(100)];
  const question = random.below(2) || x < y ? `${x}+${y}=` : `${x}-${y}=`;
  return { text: question + (question.includes('+') ? x + y : x - y), answerAt: question.length };
}

function sentence(random: Random): { text: string; answerAt: number } {
  let word = random.below(512);
  const { words: all, followers } = vocabulary();
  const words: string[] = [];
  for (let left = random.between(4, 14); left > 0; left--) {
    words.push(all[word] as string);
    // Mostly among the first of the eight.
    word = random.pick(followers[word]?.slice(0, 1 + Math.clz32(random.next() | 0x0100_0000)) ?? []);
  }
  const text = `${words.join(' ')}.`;
  return { text, answerAt: text.length };
}

function copy(random: Random): { text: string; answerAt: number } {
  const word = () => random.letters(random.between(2, 5));
  const words = Array.from({ length: random.between(2, 6) }, word).join(' ');
  return { text: `copy ${words}|${words}`, answerAt: words.length + 6 };
}

const lineOf = { nesting, arithmetic, text: sentence, copy };

class Writer {
  readonly lines: (CorpusLine & { at: number })[] = [];
  text = '\n';
  private readonly facts = new Map<string, { readonly value: string; readonly end: number }>();

  private readonly random: Random;

  constructor(random: Random) {
    this.random = random;
  }

  add(line: CorpusLine): void {
    this.lines.push({ ...line, at: this.text.length });
    this.text += `${line.text}\n`;
  }

  fact(): void {
    let key = this.random.letters(2);
    while (this.facts.has(key)) key = this.random.letters(2);
    const value = this.random.digits(5);
    this.add({ kind: 'fact', text: `@${key}=${value}`, answerAt: 9 });
    this.facts.set(key, { value, end: this.text.length - 1 });
  }

  question(): void {
    const [key, fact] = this.random.pick([...this.facts]);
    this.add({ kind: 'question', text: `?${key}=${fact.value}`, answerAt: 4, distance: this.text.length - fact.end });
  }

  line(kinds: readonly (readonly [LineKind, number])[]): void {
    let left = this.random.below(kinds.reduce((sum, [, share]) => sum + share, 0));
    const kind = kinds.find(([, share]) => {
      left -= share;
      return left < 0;
    })?.[0] as LineKind;
    if (kind === 'fact' || (kind === 'question' && this.facts.size === 0)) this.fact();
    else if (kind === 'question') this.question();
    else this.add({ kind, ...lineOf[kind](this.random) });
  }
}

/** @param seed 32 bits: the same document for the same seed and length, everywhere. Training takes even seeds, tests odd ones. */
export function corpusDocument(seed: number, length = documentLength): CorpusDocument {
  const writer = new Writer(new Random(seed));
  while (writer.text.length < length) writer.line(mixture);
  return {
    text: writer.text.slice(0, length),
    lines: writer.lines.filter(({ at, text }) => at + text.length < length),
  };
}

/**
 * A needle in filler: one fact at `depth` (0: the beginning, 1: the end) among lines of every other kind, other facts too, and the
 * question for it at the end. `prompt` is `length` characters long and ends where the answer begins.
 */
export function needle(
  seed: number,
  length: number,
  depth: number,
): { readonly prompt: string; readonly answer: string } {
  const random = new Random(seed);
  const answer = random.digits(5);
  const [fact, question] = [`@kx=${answer}\n`, '?kx='];
  const filler = new Writer(random);
  let room = length - fact.length - question.length - 1;
  while (filler.text.length < room) filler.line(mixture.filter(([kind]) => kind !== 'question'));
  const lines: string[] = [];
  for (const { text } of filler.lines) {
    if (text.length >= room || text.startsWith('@kx=')) continue;
    lines.push(`${text}\n`);
    room -= text.length + 1;
  }
  lines.splice(Math.round(depth * lines.length), 0, fact);
  // What no whole line fills is empty lines at the beginning.
  return { prompt: '\n'.repeat(room + 1) + lines.join('') + question, answer };
}

/** Facts at even depths among lines of every other kind, and the question for each: what a cache still knows of them shows. */
export function haystack(
  seed: number,
  length: number,
  count: number,
): {
  readonly text: string;
  readonly probes: readonly { readonly depth: number; readonly question: string; readonly answer: string }[];
} {
  const random = new Random(seed);
  const keys = new Set<string>();
  while (keys.size < count) keys.add(random.letters(2));
  const needles = [...keys].map((key) => ({ key, answer: random.digits(5) }));
  const filler = new Writer(random);
  let room = length - 1 - needles.length * '@kx=12345\n'.length;
  while (filler.text.length < room) filler.line(mixture.filter(([kind]) => kind !== 'question'));
  const lines: string[] = [];
  for (const { kind, text } of filler.lines) {
    if (text.length >= room || (kind === 'fact' && keys.has(text.slice(1, 3)))) continue;
    lines.push(`${text}\n`);
    room -= text.length + 1;
  }
  const depthOf = (i: number): number => (count === 1 ? 0 : i / (count - 1));
  // From the last one on, so that none moves another.
  const fillers = lines.length;
  for (let i = count - 1; i >= 0; i--) {
    const needle = needles[i] as (typeof needles)[number];
    lines.splice(Math.round(depthOf(i) * fillers), 0, `@${needle.key}=${needle.answer}\n`);
  }
  return {
    text: '\n'.repeat(room + 1) + lines.join(''),
    probes: needles.map(({ key, answer }, i) => ({ depth: depthOf(i), question: `?${key}=`, answer })),
  };
}

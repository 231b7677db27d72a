/** Which of some names a user may have meant. */

/** What was received, with the nearest name where there is one: `numHeads (Did you mean heads?)`. */
export function withNearest(names: readonly string[], received: string): string {
  const meant = nearest(names, received);
  return meant === undefined ? received : `${received} (Did you mean ${meant}?)`;
}

const letters = (text: string): string => text.toLowerCase().replaceAll(/[^a-z0-9]/g, '');
/** Shorter words are near to too much. */
const leastLetters = 4;

/** A name that differs in case and dashes only, else in one letter of four, else one that the word contains. */
function nearest(names: readonly string[], received: string): string | undefined {
  const wanted = letters(received);
  if (wanted.length < leastLetters) return undefined;
  const isPart = (name: string): boolean =>
    name.length >= Math.max(leastLetters, wanted.length / 2) && wanted.includes(name);
  return (
    names.find((name) => letters(name) === wanted) ??
    names.find((name) => distance(letters(name), wanted) <= wanted.length / 4) ??
    names.find((name) => isPart(letters(name)))
  );
}

/** Letters to insert, drop or replace (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1)
      next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length];
}

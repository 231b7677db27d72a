import { nameSeparator } from '../series/fields.ts';

let pen: CanvasRenderingContext2D | undefined;

/** Pixels of text 12 pixels high, in the window's own font. */
export function widthOf(text: string): number {
  if (!pen) {
    pen = document.createElement('canvas').getContext('2d') as CanvasRenderingContext2D;
    pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  }
  return pen.measureText(text).width;
}

/** Text that fits into so many pixels, with an ellipsis where it was cut. */
export function shortened(text: string, pixels: number): string {
  if (widthOf(text) <= pixels) return text;
  let kept = text.length - 1;
  while (kept > 1 && widthOf(`${text.slice(0, kept)}…`) > pixels) kept -= 1;
  return `${text.slice(0, kept)}…`;
}

const leastPart = 4;

/** Of a name in parts the longest gives way: a short one at the end may be all that tells it from its neighbour. */
export function shortenedParts(name: string, pixels: number): string {
  const parts = name.split(nameSeparator);
  while (widthOf(parts.join(nameSeparator)) > pixels) {
    const longest = parts.reduce((at, { length }, i) => (length > parts[at].length ? i : at), 0);
    if (parts[longest].length <= leastPart) break;
    parts[longest] = `${parts[longest].replace(/…$/, '').slice(0, -1)}…`;
  }
  return shortened(parts.join(nameSeparator), pixels);
}

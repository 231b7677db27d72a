/** Marks as small pictures, put onto a larger one pixel by pixel: ten thousand cost a tenth of what drawing them as paths costs. */
import type { LevelMark } from '../series/marks.ts';
import { shapePath } from './mark.tsx';

export interface Stamp {
  /** Width and height in device pixels. */
  readonly size: number;
  /** Red, green, blue, alpha. */
  readonly pixels: Uint8ClampedArray;
}

export interface StampLook {
  readonly mark: LevelMark;
  readonly radius: number;
  readonly isHollow: boolean;
}

/** A star reaches furthest beyond its radius; the line about a mark a little more. */
const reach = 1.5;
const lineRoom = 2;
const mostKept = 2000;
const kept = new Map<string, Stamp>();

/** A colour of the style sheet as it is now; a change of the theme changes what it says. */
export function colourNow(variable: string): string {
  const name = /^var\((.+)\)$/.exec(variable)?.[1] ?? variable;
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** @returns looks up the stamp of a look; each is drawn once for each theme and density of pixels */
export function stamps(ratio: number): (look: StampLook) => Stamp {
  const panel = colourNow('--app-panel');
  const colours = new Map<string, string>();
  const colourOf = (variable: string): string => {
    const known = colours.get(variable) ?? colourNow(variable);
    colours.set(variable, known);
    return known;
  };
  const scratch = document.createElement('canvas');
  return ({ mark, radius, isHollow }) => {
    const colour = colourOf(mark.colour);
    const key = `${mark.shape} ${colour} ${panel} ${radius} ${isHollow} ${ratio}`;
    const known = kept.get(key);
    if (known) return known;
    const stamp = drawn(scratch, new Path2D(shapePath(mark.shape, radius)), radius, ratio, isHollow, colour, panel);
    if (kept.size >= mostKept) kept.clear();
    kept.set(key, stamp);
    return stamp;
  };
}

function drawn(
  scratch: HTMLCanvasElement,
  path: Path2D,
  radius: number,
  ratio: number,
  isHollow: boolean,
  colour: string,
  panel: string,
): Stamp {
  const size = 2 * Math.ceil((radius * reach + lineRoom) * ratio);
  scratch.width = size;
  scratch.height = size;
  const paint = scratch.getContext('2d', { willReadFrequently: true });
  if (!paint) return { size: 0, pixels: new Uint8ClampedArray() };
  paint.translate(size / 2, size / 2);
  paint.scale(ratio, ratio);
  paint.fillStyle = isHollow ? panel : colour;
  paint.strokeStyle = isHollow ? colour : panel;
  paint.lineWidth = isHollow ? 1.2 : 0.5;
  paint.fill(path);
  paint.stroke(path);
  return { size, pixels: paint.getImageData(0, 0, size, size).data };
}

/** On every machine that a browser runs on, the last byte of a pixel is the highest of its word. */
const alphaShift = 24;

/** Source over destination, neither premultiplied. @param x, y middle, in device pixels */
export function put(target: ImageData, { size, pixels }: Stamp, x: number, y: number, opacity: number): void {
  const { width, height, data } = target;
  const [source, place] = [new Uint32Array(pixels.buffer), new Uint32Array(data.buffer)];
  const [left, top] = [Math.round(x - size / 2), Math.round(y - size / 2)];
  const [firstColumn, endColumn] = [Math.max(0, -left), Math.min(size, width - left)];
  const endRow = Math.min(size, height - top);
  for (let row = Math.max(0, -top); row < endRow; row += 1) {
    const [from, to] = [row * size, (top + row) * width + left];
    for (let column = firstColumn; column < endColumn; column += 1) {
      const own = source[from + column] >>> alphaShift;
      if (own === 0) continue;
      // Most of a mark hides what lies below it.
      if (own === 255 && opacity === 1) place[to + column] = source[from + column];
      else blend(data, 4 * (to + column), pixels, 4 * (from + column), own * opacity);
    }
  }
}

function blend(data: Uint8ClampedArray, to: number, pixels: Uint8ClampedArray, from: number, alpha: number): void {
  const below = (data[to + 3] * (255 - alpha)) / 255;
  const sum = alpha + below;
  for (let part = 0; part < 3; part += 1)
    data[to + part] = (pixels[from + part] * alpha + data[to + part] * below) / sum;
  data[to + 3] = sum;
}

let pen: CanvasRenderingContext2D | undefined;

/** Pixels of text 12 pixels high, in the window's own font. */
function widthOf(text: string): number {
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

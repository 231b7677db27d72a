/** Of text 12 pixels high. */
const character = 6.6;

/** Text that fits into so many pixels, with an ellipsis where it was cut. */
export function shortened(text: string, pixels: number): string {
  const most = Math.floor(pixels / character);
  return text.length > most ? `${text.slice(0, Math.max(1, most - 1))}…` : text;
}

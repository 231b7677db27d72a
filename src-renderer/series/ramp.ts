/** A ramp of colours that grows evenly in lightness and reads the same with any colour vision (cividis, Nuñez et al. 2018). */

const stops = ['#00224e', '#1b3a6b', '#45506c', '#64666e', '#7f7c75', '#9b9377', '#b9ac70', '#dac65f', '#fee838'].map(
  (colour) => [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16)),
);

/** @param share 0 to 1 */
export function rampColour(share: number): string {
  const place = Math.min(1, Math.max(0, share)) * (stops.length - 1);
  const at = Math.min(stops.length - 2, Math.floor(place));
  const mixed = stops[at].map((from, i) => Math.round(from + (stops[at + 1][i] - from) * (place - at)));
  return `#${mixed.map((part) => part.toString(16).padStart(2, '0')).join('')}`;
}

/** Text on the ramp: white on its dark half, black on its light half, each at least 4.5 : 1. */
export const inkOn = (share: number): string => (share < 0.462 ? '#ffffff' : '#000000');

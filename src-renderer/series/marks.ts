/** How a level looks wherever it appears: a colour and, for eyes that see fewer colours, a shape. */

export const shapes = ['circle', 'square', 'triangle', 'diamond', 'cross', 'star', 'wedge'] as const;
export type Shape = (typeof shapes)[number];

/** Hues of Okabe and Ito, tuned for both themes in `theme.css`; the first is neutral and belongs to the baseline. */
const colourCount = 8;

export interface LevelMark {
  readonly colour: string;
  readonly shape: Shape;
}

/** By the level's place in the list of all levels, so that it looks the same in every sweep. 8 and 7 share no factor. */
export function markOf(level: string, levels: readonly string[]): LevelMark {
  const place = Math.max(0, levels.indexOf(level));
  return { colour: `var(--series-${place % colourCount})`, shape: shapes[place % shapes.length] };
}

const dashes = [undefined, '7 4', '2 3', '9 3 2 3', '12 4', '4 2 1 2 1 2'];

/** The pattern of a line, for what varies beside the level; undefined = solid. */
export const dashOf = (pattern: number): string | undefined => dashes[pattern % dashes.length];

/** Colours of baselines are none of the levels': a mark shows both. */
export const baselineColour = (colour: number): string => `var(--baseline-${colour})`;

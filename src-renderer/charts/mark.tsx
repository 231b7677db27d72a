/** One mark of a level: the same drawing on charts, in lists, and in exported pictures. */
import type { LevelMark } from '../series/marks.ts';
import { shapePath } from '../series/shapes.ts';

export { shapePath };

interface MarkProps {
  readonly mark: LevelMark;
  readonly radius: number;
  /** Outlined instead of filled: prefill beside decode. */
  readonly hollow?: boolean;
}

export const MarkPath = ({ mark, radius, hollow = false }: MarkProps) => (
  <path
    d={shapePath(mark.shape, radius)}
    fill={hollow ? 'var(--app-panel)' : mark.colour}
    stroke={hollow ? mark.colour : 'var(--app-panel)'}
    strokeWidth={hollow ? 2 : 1}
  />
);

/** A mark in running text. */
export const Swatch = ({ mark, hollow = false }: Omit<MarkProps, 'radius'>) => (
  <svg width="14" height="14" viewBox="-7 -7 14 14" aria-hidden="true" style={{ flex: 'none' }}>
    <MarkPath mark={mark} radius={4.6} hollow={hollow} />
  </svg>
);

/** Any other small drawing that a legend explains, around the origin, about 5 in radius. */
export interface Glyph {
  readonly d: string;
  readonly fill: string;
  readonly stroke: string;
}

/** A baseline: outlined, in its own colour. */
export const ringOf = (colour: string): Glyph => ({ d: shapePath('circle', 4.6), fill: 'none', stroke: colour });

export const GlyphSwatch = ({ glyph }: { readonly glyph: Glyph }) => (
  <svg width="14" height="14" viewBox="-7 -7 14 14" aria-hidden="true" style={{ flex: 'none' }}>
    <path {...glyph} strokeWidth={2} />
  </svg>
);

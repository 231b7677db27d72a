/** Shapes of marks as SVG paths. */
import type { Shape } from './marks.ts';

const point = (radius: number, turns: number): string => {
  const angle = 2 * Math.PI * turns - Math.PI / 2;
  return `${(radius * Math.cos(angle)).toFixed(2)},${(radius * Math.sin(angle)).toFixed(2)}`;
};
const polygon = (corners: readonly string[]): string => `M${corners.join('L')}Z`;

/** SVG path around the origin; areas of all shapes are about equal, so that none looks more important. */
export function shapePath(shape: Shape, radius: number): string {
  const r = radius;
  switch (shape) {
    case 'circle':
      return `M${-r},0A${r},${r} 0 1 1 ${r},0A${r},${r} 0 1 1 ${-r},0Z`;
    case 'square':
      return `M${-0.88 * r},${-0.88 * r}H${0.88 * r}V${0.88 * r}H${-0.88 * r}Z`;
    case 'triangle':
      return polygon([0, 1, 2].map((i) => point(1.3 * r, i / 3)));
    case 'diamond':
      return polygon([0, 1, 2, 3].map((i) => point(1.24 * r, i / 4)));
    case 'cross': {
      const [a, b] = [0.42 * r, 1.18 * r];
      return `M${-a},${-b}H${a}V${-a}H${b}V${a}H${a}V${b}H${-a}V${a}H${-b}V${-a}H${-a}Z`;
    }
    case 'star':
      return polygon(Array.from({ length: 10 }, (_, i) => point(i % 2 === 0 ? 1.42 * r : 0.66 * r, i / 10)));
    case 'wedge':
      return polygon([0.5, 0.5 + 1 / 3, 0.5 - 1 / 3].map((turns) => point(1.3 * r, turns)));
  }
}

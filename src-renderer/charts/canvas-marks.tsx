/** Marks on a canvas, for more of them than SVG can bear; a saved picture gets them as paths all the same. */
import { useComputedColorScheme } from '@mantine/core';
import { useLayoutEffect, useRef } from 'react';
import { markOf } from '../series/marks.ts';
import { groupOf, type PlacedMark } from '../series/plane.ts';
import { shapePath } from './mark.tsx';
import { colourNow, put, stamps } from './stamps.ts';

interface CanvasMarksProps {
  readonly placed: readonly PlacedMark[];
  readonly width: number;
  readonly height: number;
  readonly groups: readonly string[];
  readonly brushed: ReadonlySet<string> | undefined;
  readonly isFaint: boolean;
}

/** Radii are drawn in steps this coarse, so that few stamps serve all marks. */
const radiusStep = 1.25;
export const dimmed = 0.12;
const faint = 0.35;

const opacityOf = (id: string, { brushed, isFaint }: Pick<CanvasMarksProps, 'brushed' | 'isFaint'>): number =>
  brushed ? (brushed.has(id) ? 1 : dimmed) : isFaint ? faint : 1;

const markupOf = new WeakMap<HTMLCanvasElement, () => string>();

/** The same marks as SVG, in the coordinates of the canvas. */
export const canvasAsSvg = (canvas: HTMLCanvasElement): string => markupOf.get(canvas)?.() ?? '';

export function CanvasMarks(props: CanvasMarksProps) {
  const { placed, width, height, groups, brushed, isFaint } = props;
  const canvas = useRef<HTMLCanvasElement>(null);
  const scheme = useComputedColorScheme();
  // biome-ignore lint/correctness/useExhaustiveDependencies: colours are read from the style sheet of the scheme
  useLayoutEffect(() => {
    if (!canvas.current) return;
    draw(canvas.current, props);
    markupOf.set(canvas.current, () => asMarkup(props));
  }, [placed, width, height, groups, brushed, isFaint, scheme]);
  return (
    <canvas ref={canvas} style={{ position: 'absolute', left: 0, top: 0, width, height, pointerEvents: 'none' }} />
  );
}

function draw(canvas: HTMLCanvasElement, marks: CanvasMarksProps): void {
  const { placed, width, height, groups, brushed } = marks;
  const ratio = window.devicePixelRatio;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const paint = canvas.getContext('2d');
  if (!paint || canvas.width === 0 || canvas.height === 0) return;
  const picture = paint.createImageData(canvas.width, canvas.height);
  const stampOf = stamps(ratio);
  const looks = new Map(groups.map((group) => [group, markOf(group, groups)]));
  for (const { mark, cx, cy, radius } of dimmedFirst(placed, brushed)) {
    const stamp = stampOf({
      mark: looks.get(groupOf(mark)) ?? markOf(groupOf(mark), groups),
      radius: Math.round(radius / radiusStep) * radiusStep,
      isHollow: mark.phase === 'prefill',
    });
    put(picture, stamp, cx * ratio, cy * ratio, opacityOf(mark.id, marks));
  }
  paint.putImageData(picture, 0, 0);
}

const dimmedFirst = (placed: readonly PlacedMark[], brushed: ReadonlySet<string> | undefined) =>
  brushed
    ? [...placed.filter(({ mark }) => !brushed.has(mark.id)), ...placed.filter(({ mark }) => brushed.has(mark.id))]
    : placed;

function asMarkup(marks: CanvasMarksProps): string {
  const { placed, groups, brushed } = marks;
  return dimmedFirst(placed, brushed)
    .map(({ mark, cx, cy, radius }) => {
      const { shape, colour } = markOf(groupOf(mark), groups);
      const drawn = colourNow(colour);
      const paint = mark.phase === 'prefill' ? `fill="none" stroke="${drawn}"` : `fill="${drawn}"`;
      return `<path transform="translate(${cx.toFixed(1)} ${cy.toFixed(1)})" d="${shapePath(shape, radius)}" ${paint} opacity="${opacityOf(mark.id, marks)}"/>`;
    })
    .join('');
}

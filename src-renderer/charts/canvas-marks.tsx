/** Marks on a canvas, for more of them than SVG can bear; a saved picture gets them as paths all the same. */
import { useComputedColorScheme } from '@mantine/core';
import { useLayoutEffect, useRef } from 'react';
import { markOf, type Shape } from '../series/marks.ts';
import type { Box, PlacedMark } from '../series/plane.ts';
import { shapePath } from './mark.tsx';

interface CanvasMarksProps {
  readonly placed: readonly PlacedMark[];
  readonly box: Box;
  readonly width: number;
  readonly height: number;
  readonly levels: readonly string[];
  readonly brushed: ReadonlySet<string> | undefined;
}

/** Radii are drawn in steps this fine, so that few shapes serve all marks. */
const radiusStep = 0.5;
export const dimmed = 0.12;

const markupOf = new WeakMap<HTMLCanvasElement, () => string>();

/** The same marks as SVG, in the coordinates of the canvas. */
export const canvasAsSvg = (canvas: HTMLCanvasElement): string => markupOf.get(canvas)?.() ?? '';

export function CanvasMarks({ placed, box, width, height, levels, brushed }: CanvasMarksProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const scheme = useComputedColorScheme();
  // biome-ignore lint/correctness/useExhaustiveDependencies: colours are read from the style sheet of the scheme
  useLayoutEffect(() => {
    if (!canvas.current) return;
    draw(canvas.current, { placed, box, width, height, levels, brushed });
    markupOf.set(canvas.current, () => asMarkup({ placed, box, width, height, levels, brushed }));
  }, [placed, box, width, height, levels, brushed, scheme]);
  return (
    <canvas ref={canvas} style={{ position: 'absolute', left: 0, top: 0, width, height, pointerEvents: 'none' }} />
  );
}

interface Look {
  readonly shape: Shape;
  readonly colour: string;
}

function lookOf(levels: readonly string[]): (level: string) => Look {
  const style = getComputedStyle(document.documentElement);
  const looks = new Map<string, Look>();
  return (level) => {
    const known = looks.get(level);
    if (known) return known;
    const { shape, colour } = markOf(level, levels);
    const look = { shape, colour: style.getPropertyValue(colour.slice(4, -1)).trim() };
    looks.set(level, look);
    return look;
  };
}

function draw(canvas: HTMLCanvasElement, { placed, box, width, height, levels, brushed }: CanvasMarksProps): void {
  const ratio = window.devicePixelRatio;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const paint = canvas.getContext('2d');
  if (!paint) return;
  const panel = getComputedStyle(document.documentElement).getPropertyValue('--app-panel').trim();
  const look = lookOf(levels);
  const paths = new Map<string, Path2D>();
  paint.scale(ratio, ratio);
  paint.beginPath();
  paint.rect(box.left - 6, box.top - 6, box.right - box.left + 12, box.bottom - box.top + 12);
  paint.clip();
  for (const { mark, cx, cy, radius } of dimmedFirst(placed, brushed)) {
    const { shape, colour } = look(mark.level);
    const rounded = Math.round(radius / radiusStep) * radiusStep;
    const key = `${shape}${rounded}`;
    const path = paths.get(key) ?? new Path2D(shapePath(shape, rounded));
    paths.set(key, path);
    const isHollow = mark.phase === 'prefill';
    paint.globalAlpha = brushed && !brushed.has(mark.id) ? dimmed : 1;
    paint.fillStyle = isHollow ? panel : colour;
    paint.strokeStyle = isHollow ? colour : panel;
    paint.lineWidth = isHollow ? 1.2 : 0.5;
    paint.translate(cx, cy);
    paint.fill(path);
    paint.stroke(path);
    paint.translate(-cx, -cy);
  }
}

const dimmedFirst = (placed: readonly PlacedMark[], brushed: ReadonlySet<string> | undefined) =>
  brushed
    ? [...placed.filter(({ mark }) => !brushed.has(mark.id)), ...placed.filter(({ mark }) => brushed.has(mark.id))]
    : placed;

function asMarkup({ placed, levels, brushed }: CanvasMarksProps): string {
  const look = lookOf(levels);
  return dimmedFirst(placed, brushed)
    .map(({ mark, cx, cy, radius }) => {
      const { shape, colour } = look(mark.level);
      const opacity = brushed && !brushed.has(mark.id) ? ` opacity="${dimmed}"` : '';
      const paint = mark.phase === 'prefill' ? `fill="none" stroke="${colour}"` : `fill="${colour}"`;
      return `<path transform="translate(${cx.toFixed(1)} ${cy.toFixed(1)})" d="${shapePath(shape, radius)}" ${paint}${opacity}/>`;
    })
    .join('');
}

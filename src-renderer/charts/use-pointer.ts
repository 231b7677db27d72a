/** Pointing at, clicking, dragging over and zooming a plane of marks. */
import { type PointerEvent, type RefObject, useEffect, useRef, useState } from 'react';
import type { Axis } from '../series/axis.ts';
import { type Box, type PlacedMark, within, zoomAbout } from '../series/plane.ts';
import { type Ends, isAdding, type Linked } from './linked.ts';

interface PlaneOfMarks {
  readonly element: RefObject<HTMLElement | null>;
  readonly x: Axis;
  readonly y: Axis;
  readonly box: Box;
  readonly placed: readonly PlacedMark[];
  readonly nearest: (x: number, y: number) => PlacedMark | undefined;
  readonly linked: Linked;
  readonly onZoom: (ends: Ends | undefined) => void;
}

/** Less than this is a click by a hand that shook. */
const leastDragPixels = 6;
const zoomOfOneStep = 1.0015;

export function usePointer({ element, x, y, box, placed, nearest, linked, onZoom }: PlaneOfMarks) {
  const [near, setNear] = useState<PlacedMark>();
  const [brush, setBrush] = useState<Box>();
  const start = useRef<{ x: number; y: number } | undefined>(undefined);

  const at = (event: { clientX: number; clientY: number }) => {
    const { left, top } = (element.current as HTMLElement).getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  };
  const isInside = (place: { x: number; y: number }): boolean =>
    place.x >= box.left && place.x <= box.right && place.y >= box.top && place.y <= box.bottom;
  const dragged = (to: { x: number; y: number }): Box | undefined => {
    const from = start.current;
    if (!from || Math.hypot(to.x - from.x, to.y - from.y) < leastDragPixels) return undefined;
    return {
      left: Math.max(box.left, Math.min(from.x, to.x)),
      right: Math.min(box.right, Math.max(from.x, to.x)),
      top: Math.max(box.top, Math.min(from.y, to.y)),
      bottom: Math.min(box.bottom, Math.max(from.y, to.y)),
    };
  };

  // Not through React: its wheel listeners are passive and could not keep the page from zooming.
  useEffect(() => {
    const target = element.current;
    const zoom = (event: WheelEvent): void => {
      const { left, top } = (target as HTMLElement).getBoundingClientRect();
      const place = { x: event.clientX - left, y: event.clientY - top };
      const shareX = (place.x - box.left) / (box.right - box.left);
      const shareY = (box.bottom - place.y) / (box.bottom - box.top);
      if (shareX < 0 || shareX > 1 || shareY < 0 || shareY > 1) return;
      event.preventDefault();
      const factor = zoomOfOneStep ** event.deltaY;
      onZoom({ x: zoomAbout(x, shareX, factor), y: zoomAbout(y, shareY, factor) });
    };
    target?.addEventListener('wheel', zoom, { passive: false });
    return () => target?.removeEventListener('wheel', zoom);
  }, [element, x, y, box, onZoom]);

  const handlers = {
    onPointerDown: (event: PointerEvent<HTMLElement>) => {
      const place = at(event);
      if (event.button === 0 && isInside(place)) start.current = place;
    },
    onPointerMove: (event: PointerEvent<HTMLElement>) => {
      const place = at(event);
      const box = dragged(place);
      if (box && !brush) event.currentTarget.setPointerCapture(event.pointerId);
      if (box) setBrush(box);
      setNear(box ? undefined : nearest(place.x, place.y));
    },
    onPointerUp: (event: PointerEvent<HTMLElement>) => {
      if (!start.current) return;
      const place = at(event);
      const box = dragged(place);
      start.current = undefined;
      setBrush(undefined);
      if (box) linked.onBrush(within(placed, box).map(({ mark }) => mark.id));
      else {
        const mark = nearest(place.x, place.y);
        if (mark) linked.onSelect(mark.mark.id, isAdding(event));
      }
    },
    onPointerCancel: () => {
      start.current = undefined;
      setBrush(undefined);
    },
    onPointerLeave: () => setNear(undefined),
    onDoubleClick: () => onZoom(undefined),
  };
  // A mark that has gone or moved is not pointed at any more.
  return { near: near && placed.includes(near) ? near : undefined, brush, handlers };
}

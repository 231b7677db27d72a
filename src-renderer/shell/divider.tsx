/** A border between two panes that can be moved, by pointer and by arrow keys. */
import { type KeyboardEvent, type PointerEvent, useRef } from 'react';
import classes from './divider.module.css';

interface DividerProps {
  readonly className: string | undefined;
  readonly label: string;
  /** Pixels of the pane that it sizes. */
  readonly value: number;
  readonly range: readonly [least: number, most: number];
  /** It lies between rows. */
  readonly isHorizontal?: boolean;
  /** The pane that it sizes comes after it. */
  readonly isReversed?: boolean;
  readonly onChange: (pixels: number) => void;
}

const keyStep = 16;

export function Divider({
  className,
  label,
  value,
  range,
  isHorizontal = false,
  isReversed = false,
  onChange,
}: DividerProps) {
  const grip = useRef<{ readonly at: number; readonly value: number } | undefined>(undefined);
  const [least, most] = range;
  const sign = isReversed ? -1 : 1;
  const set = (pixels: number): void => onChange(Math.round(Math.min(most, Math.max(least, pixels))));
  const along = (event: PointerEvent): number => (isHorizontal ? event.clientY : event.clientX);

  const take = (event: PointerEvent): void => {
    event.currentTarget.setPointerCapture(event.pointerId);
    grip.current = { at: along(event), value };
  };
  const move = (event: PointerEvent): void => {
    if (grip.current) set(grip.current.value + sign * (along(event) - grip.current.at));
  };
  const press = (event: KeyboardEvent): void => {
    const [less, more] = isHorizontal ? ['ArrowUp', 'ArrowDown'] : ['ArrowLeft', 'ArrowRight'];
    if (event.key !== less && event.key !== more) return;
    event.preventDefault();
    set(value + sign * (event.key === more ? keyStep : -keyStep));
  };

  return (
    // biome-ignore lint/a11y/useSemanticElements: <hr> cannot be moved
    <div
      role="separator"
      className={`${classes.divider} ${className ?? ''}`}
      data-horizontal={isHorizontal || undefined}
      tabIndex={0}
      aria-label={label}
      aria-orientation={isHorizontal ? 'horizontal' : 'vertical'}
      aria-valuenow={value}
      aria-valuemin={least}
      aria-valuemax={most}
      onPointerDown={take}
      onPointerMove={move}
      onPointerUp={() => {
        grip.current = undefined;
      }}
      onKeyDown={press}
    />
  );
}

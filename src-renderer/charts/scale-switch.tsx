import type { CSSProperties } from 'react';
import type { Axis } from '../series/axis.ts';
import classes from './plane-chart.module.css';

interface ScaleSwitchProps {
  readonly axis: Axis;
  /** Which axis, where several switches stand together. */
  readonly sign?: string;
  readonly style: CSSProperties;
  readonly onScale: (scale: Axis['scale']) => void;
}

/** Names the scale of an axis and turns it into the other one. */
export const ScaleSwitch = ({ axis: { metric, scale }, sign, style, onScale }: ScaleSwitchProps) => (
  <button
    type="button"
    className={classes.scale}
    style={style}
    // What is seen comes first: it is what a user of speech input says.
    aria-label={`${sign ? `${sign} ` : ''}${scale}. Scale of ${metric.title}: ${scale}`}
    onClick={() => onScale(scale === 'log' ? 'linear' : 'log')}
    // The plane below it would take a press for the beginning of a drag.
    onPointerDown={(event) => event.stopPropagation()}
  >
    {sign} {scale}
  </button>
);

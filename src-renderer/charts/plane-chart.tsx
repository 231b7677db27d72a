/** Points on two axes, with everything a user does to them: point, select, brush, zoom, walk with the arrow keys. */
import { type KeyboardEvent, memo, type ReactNode, useId, useMemo, useRef } from 'react';
import { CartesianGrid, Scatter, ScatterChart, XAxis, YAxis } from 'recharts';
import type { Metric } from '../../src-main/contract/metrics.ts';
import { type Axis, axisTick } from '../series/axis.ts';
import { axisLabel } from '../series/metric.ts';
import {
  type Box,
  indexOf,
  type Mark,
  mostSvgMarks,
  nextMark,
  type PlacedMark,
  placeMarks,
  placeNames,
  toX,
  toY,
  zoomAbout,
} from '../series/plane.ts';
import { CanvasMarks } from './canvas-marks.tsx';
import { type Ends, isAdding, type Linked } from './linked.ts';
import { type OutlinedMarks, OutlinedMarksOf, roomOfOutlines } from './outlined-marks.tsx';
import { PlacedTooltip, PointOverlay } from './point-overlay.tsx';
import { PointTooltip } from './point-tooltip.tsx';
import { ScaleSwitch } from './scale-switch.tsx';
import { shortened, widthOf } from './shortened.ts';
import { SvgMarks } from './svg-marks.tsx';
import { usePointer } from './use-pointer.ts';
import { Walked } from './walked.tsx';

export interface PlaneLine {
  readonly key: string;
  readonly places: readonly { readonly x: number; readonly y: number }[];
  readonly colour: string;
  readonly width: number;
  readonly dash?: string | undefined;
  readonly opacity?: number;
}

/** Words that stand in the plane itself, beside what they name. */
export interface PlaneNote {
  readonly text: string;
  readonly x: number;
  readonly y: number;
  readonly anchor: 'start' | 'end';
  /** Along a line that leads from (x, y) to here. */
  readonly towards?: { readonly x: number; readonly y: number };
}

export interface PlaneChartProps {
  readonly name: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly marks: readonly Mark[];
  /** Marks of other sessions: outlined in the session's colour, behind the current ones. */
  readonly beside?: readonly OutlinedMarks[];
  readonly lines?: readonly PlaneLine[];
  readonly notes?: readonly PlaneNote[];
  /** Marks that bear the name of their level. */
  readonly named?: readonly Mark[];
  readonly metrics: readonly Metric[];
  readonly width: number;
  readonly height: number;
  readonly levels: readonly string[];
  /** What marks are told apart by, in the order of colours; absent = the levels. */
  readonly groups?: readonly string[] | undefined;
  readonly linked: Linked;
  /** Marks stand behind what the lines say. */
  readonly isFaint?: boolean;
  readonly onZoom: (ends: Ends | undefined) => void;
  readonly onScale: (axis: 'x' | 'y', scale: Axis['scale']) => void;
}

const margin = { top: 12, right: 28, bottom: 24, left: 22 };
const leastTickWidth = 44;
const tickCharacter = 6.3;
const xAxisHeight = 30;
const zoomOfOneKey = 0.8;
const none: readonly never[] = [];

export function PlaneChart(props: PlaneChartProps) {
  const { name, x, y, marks, beside = none, lines = none, named = none, width, height, levels, linked, onZoom } = props;
  const groups = props.groups ?? levels;
  const element = useRef<HTMLDivElement>(null);
  const tickWidth = widthOfTicks(y);
  const box = useMemo(
    () => ({
      left: margin.left + tickWidth,
      top: margin.top,
      right: width - margin.right,
      bottom: height - margin.bottom - xAxisHeight,
    }),
    [width, height, tickWidth],
  );
  const placed = useMemo(() => placeMarks(marks, x, y, box), [marks, x, y, box]);
  const nearest = useMemo(() => indexOf(placed), [placed]);
  const { near, brush, handlers } = usePointer({ element, x, y, box, placed, nearest, linked, onZoom });
  const selected = useMemo(() => {
    const ids = new Set(linked.selected);
    return placed.filter(({ mark }) => ids.has(mark.id));
  }, [placed, linked.selected]);
  const looked = linked.selected.at(-1);
  const pinned = linked.isPinned ? selected.find(({ mark }) => mark.id === looked) : undefined;
  const told = near ?? pinned;

  const { notes = none, isFaint = false } = props;
  const { brushed } = linked;
  // An element kept between renders is not painted again: the pointer moves far more often than the picture changes.
  const picture = useMemo(
    () => (
      <>
        <Picture x={x} y={y} width={width} height={height} box={box} lines={lines} notes={notes}>
          <OutlinedMarksOf beside={beside} placed={placed} x={x} y={y} box={box} groups={groups} />
          {placed.length <= mostSvgMarks && <SvgMarks placed={placed} groups={groups} brushed={brushed} />}
          <Names named={named} x={x} y={y} box={box} placed={placed} room={roomOfOutlines(beside.length)} />
        </Picture>
        {placed.length > mostSvgMarks && (
          <CanvasMarks
            placed={placed}
            width={width}
            height={height}
            groups={groups}
            brushed={brushed}
            isFaint={isFaint}
          />
        )}
      </>
    ),
    [x, y, width, height, box, lines, notes, beside, placed, groups, brushed, named, isFaint],
  );

  const onKey = (event: KeyboardEvent): boolean => {
    const { key } = event;
    if (/^(Arrow(Left|Right|Up|Down)|Home|End)$/.test(key)) {
      const next = nextMark(placed, looked, key as Parameters<typeof nextMark>[2]);
      if (next) linked.onSelect(next.mark.id, isAdding(event));
    } else if (key === '+' || key === '-') {
      const factor = key === '+' ? zoomOfOneKey : 1 / zoomOfOneKey;
      onZoom({ x: zoomAbout(x, 0.5, factor), y: zoomAbout(y, 0.5, factor) });
    } else if (key === '0') onZoom(undefined);
    else return false;
    return true;
  };

  return (
    <Walked
      ref={element}
      name={name}
      keys="Arrow keys go from point to point, plus and minus zoom, 0 shows all"
      isNear={near !== undefined}
      onKey={onKey}
      told={
        told &&
        !brush && (
          <PlacedTooltip cx={told.cx} cy={told.cy} width={width} height={height} gap={told.radius + 10}>
            <PointTooltip point={told.mark.point} metrics={props.metrics} levels={levels} />
          </PlacedTooltip>
        )
      }
      {...handlers}
    >
      {picture}
      <PointOverlay width={width} height={height} selected={selected} near={near} brush={brush} />
      <ScaleSwitch axis={x} sign="x" style={{ right: 4, bottom: 0 }} onScale={(scale) => props.onScale('x', scale)} />
      <ScaleSwitch axis={y} sign="y" style={{ left: 0, bottom: 0 }} onScale={(scale) => props.onScale('y', scale)} />
    </Walked>
  );
}

/** Room for the longest tick in one line. */
const widthOfTicks = (axis: Axis): number =>
  Math.max(leastTickWidth, ...axis.ticks.map((tick) => axisTick(axis, tick).length * tickCharacter + 14));

const axisProps = (axis: Axis) => ({
  type: 'number' as const,
  scale: axis.scale,
  domain: [...axis.domain],
  ticks: [...axis.ticks],
  interval: 'equidistantPreserveStart' as const,
  allowDataOverflow: true,
  tickFormatter: (value: number) => axisTick(axis, value),
  stroke: 'var(--chart-axis)',
  tick: { fill: 'var(--chart-axis)', fontSize: 11 },
});
const label = { fill: 'var(--chart-axis)', fontSize: 12 };

interface PictureProps {
  readonly x: Axis;
  readonly y: Axis;
  readonly width: number;
  readonly height: number;
  readonly box: Box;
  readonly lines: readonly PlaneLine[];
  readonly notes: readonly PlaneNote[];
  readonly children: ReactNode;
}

/** Axes and grid by recharts; marks in our own layers, because it would give every one of ten thousand its own component. */
function Picture({ x, y, width, height, box, lines, notes, children }: PictureProps) {
  const clip = useId();
  return (
    <ScatterChart accessibilityLayer={false} width={width} height={height} margin={margin}>
      {axes(x, y, box)}
      <clipPath id={clip}>
        <rect x={box.left} y={box.top} width={box.right - box.left} height={box.bottom - box.top} />
      </clipPath>
      <g clipPath={`url(#${clip})`}>
        <Lines lines={lines} x={x} y={y} box={box} />
        {notes.map((note) => (
          <Note key={note.text} note={note} x={x} y={y} box={box} />
        ))}
      </g>
      {children}
    </ScatterChart>
  );
}

/** Which direction is better only where there is room for it. */
function fittingLabel(metric: Metric, pixels: number): string {
  const label = axisLabel(metric);
  return widthOf(label) <= pixels ? label : shortened(metric.title, pixels);
}

/** Elements, not a component: recharts finds its parts among its children. */
function axes(x: Axis, y: Axis, { left, top, right, bottom }: Box): ReactNode {
  return (
    <>
      <CartesianGrid stroke="var(--chart-grid)" />
      <XAxis
        dataKey="x"
        height={xAxisHeight}
        {...axisProps(x)}
        label={{ ...label, value: fittingLabel(x.metric, right - left), position: 'bottom', offset: 6 }}
      />
      <YAxis
        dataKey="y"
        width={widthOfTicks(y)}
        {...axisProps(y)}
        label={{
          ...label,
          value: fittingLabel(y.metric, bottom - top),
          angle: -90,
          position: 'left',
          offset: 4,
          style: { textAnchor: 'middle' },
        }}
      />
      {/* An axis without any data draws nothing. */}
      <Scatter
        data={[{ x: x.domain[0], y: y.domain[0] }]}
        isAnimationActive={false}
        tooltipType="none"
        legendType="none"
        shape={() => <g />}
      />
    </>
  );
}

interface PlacedOn {
  readonly x: Axis;
  readonly y: Axis;
  readonly box: Box;
}

const Lines = memo(({ lines, x, y, box }: PlacedOn & { readonly lines: readonly PlaneLine[] }) =>
  lines.map(({ key, places, colour, width, dash, opacity }) => (
    <polyline
      key={key}
      points={places.map((place) => `${toX(x, box, place.x)},${toY(y, box, place.y)}`).join(' ')}
      fill="none"
      stroke={colour}
      strokeWidth={width}
      strokeDasharray={dash}
      strokeOpacity={opacity}
      strokeLinejoin="round"
    />
  )),
);

function Note({ note, x, y, box }: PlacedOn & { readonly note: PlaneNote }) {
  const [cx, cy] = [toX(x, box, note.x), toY(y, box, note.y)];
  const angle = note.towards
    ? (Math.atan2(toY(y, box, note.towards.y) - cy, toX(x, box, note.towards.x) - cx) * 180) / Math.PI
    : 0;
  return (
    <text
      transform={`translate(${cx} ${cy}) rotate(${angle})`}
      y={-6}
      textAnchor={note.anchor}
      fontSize={11}
      fill="var(--app-text)"
      stroke="var(--app-panel)"
      strokeWidth={3}
      paintOrder="stroke"
    >
      {note.text}
    </text>
  );
}

interface NamesProps extends PlacedOn {
  readonly named: readonly Mark[];
  /** All marks: names keep clear of them. */
  readonly placed: readonly PlacedMark[];
  /** Pixels around a mark that something else takes. */
  readonly room: number;
}

const Names = memo(({ named, x, y, box, placed, room }: NamesProps) =>
  placed.length > mostSvgMarks
    ? null
    : placeNames(
        placeMarks(named, x, y, box).map((mark) => ({ ...mark, radius: mark.radius + room })),
        box,
        placed,
      ).map(({ text, x: left, y: top, isLeft }) => (
        <text
          key={`${text} ${left} ${top}`}
          x={left}
          y={top}
          textAnchor={isLeft ? 'end' : 'start'}
          fontSize={11}
          fill="var(--app-text)"
          stroke="var(--app-panel)"
          strokeWidth={3}
          paintOrder="stroke"
          pointerEvents="none"
        >
          {text}
        </text>
      )),
);

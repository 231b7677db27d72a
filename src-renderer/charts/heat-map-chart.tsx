/** One cell for each pair of values. Plain SVG: recharts has no such chart, and cells of one colour share a path. */
import { type KeyboardEvent, type MouseEvent, memo, useMemo, useState } from 'react';
import { formatMetric } from '../../src-main/contract/format.ts';
import { axisTick } from '../series/axis.ts';
import { fieldTitle, fieldValue } from '../series/fields.ts';
import type { HeatCell, HeatMap } from '../series/heat-map.ts';
import { shareOf } from '../series/plane.ts';
import { inkOn, rampColour } from '../series/ramp.ts';
import { isAdding, type Linked } from './linked.ts';
import classes from './plane-chart.module.css';
import { PlacedTooltip } from './point-overlay.tsx';
import { PointTooltip } from './point-tooltip.tsx';
import { ScaleSwitch } from './scale-switch.tsx';
import { Walked } from './walked.tsx';

interface HeatMapChartProps {
  readonly data: HeatMap;
  readonly width: number;
  readonly height: number;
  readonly levels: readonly string[];
  readonly linked: Linked;
  readonly onScale: (scale: 'log' | 'linear') => void;
}

const margin = { top: 10, right: 96, bottom: 46 };
const widestNames = 150;
const narrowestNames = 56;
const character = 6.7;
const tallestCell = 64;
const widestCell = 180;
const figureCharacter = 6.4;
const figureHeight = 16;
const colourSteps = 64;

interface Grid {
  readonly left: number;
  readonly top: number;
  readonly cellWidth: number;
  readonly cellHeight: number;
}

export function HeatMapChart({ data, width, height, levels, linked, onScale }: HeatMapChartProps) {
  const { x, y, cells, colour, metric } = data;
  const [near, setNear] = useState<HeatCell>();
  const grid = useMemo(() => gridOf(data, width, height), [data, width, height]);
  const byPlace = useMemo(() => new Map(cells.map((cell) => [placeKey(cell.column, cell.row), cell])), [cells]);
  const chosen = new Set(linked.selected);
  const isChosen = ({ ids }: HeatCell): boolean => ids.some((id) => chosen.has(id));
  const looked = linked.selected.at(-1);
  const pinned = linked.isPinned ? cells.find(({ ids }) => looked !== undefined && ids.includes(looked)) : undefined;
  const told = near && cells.includes(near) ? near : pinned;

  const choose = (cell: HeatCell, add: boolean): void => {
    linked.onSelect(cell.ids[0], add);
    linked.onBrush(cell.ids.length > 1 ? cell.ids : undefined);
  };
  const cellAt = (event: MouseEvent<HTMLElement>): HeatCell | undefined => {
    const box = event.currentTarget.getBoundingClientRect();
    return byPlace.get(
      placeKey(
        Math.floor((event.clientX - box.left - grid.left) / grid.cellWidth),
        Math.floor((event.clientY - box.top - grid.top) / grid.cellHeight),
      ),
    );
  };
  const onKey = (event: KeyboardEvent): boolean => {
    const steps: Record<string, readonly [number, number]> = {
      ArrowLeft: [-1, 0],
      ArrowRight: [1, 0],
      ArrowUp: [0, 1],
      ArrowDown: [0, -1],
    };
    const by = steps[event.key];
    if (!by) return false;
    const from = cells.find(isChosen);
    const next = from ? nextCell(byPlace, from, by, data) : cells[0];
    if (next) choose(next, false);
    return true;
  };
  return (
    <Walked
      name={`${metric.title} over ${fieldTitle(x.field)} and ${fieldTitle(y.field)}`}
      keys="Arrow keys go from cell to cell"
      isNear={near !== undefined}
      onKey={onKey}
      told={
        told && (
          <PlacedTooltip
            cx={grid.left + (told.column + 0.5) * grid.cellWidth}
            cy={grid.top + (told.row + 0.5) * grid.cellHeight}
            width={width}
            height={height}
            gap={Math.min(grid.cellWidth, 60) / 2 + 6}
          >
            <PointTooltip
              point={told.point}
              metrics={[metric]}
              levels={levels}
              {...(told.ids.length > 1
                ? { note: `median of ${told.ids.length} points: ${formatMetric(told.value, metric.unit)}` }
                : {})}
            />
          </PlacedTooltip>
        )
      }
      onMouseMove={(event) => setNear(cellAt(event))}
      onMouseLeave={() => setNear(undefined)}
      onClick={(event) => {
        const cell = cellAt(event);
        if (cell) choose(cell, isAdding(event));
      }}
    >
      <svg width={width} height={height} aria-hidden="true">
        <Cells data={data} grid={grid} brushed={linked.brushed} />
        <Names data={data} grid={grid} />
        <Key data={data} left={grid.left + x.values.length * grid.cellWidth + 14} height={height} />
      </svg>
      <svg className={classes.overlay} width={width} height={height} aria-hidden="true" data-overlay="">
        {cells
          .filter((cell) => isChosen(cell) || cell === near)
          .map((cell) => (
            <rect
              key={placeKey(cell.column, cell.row)}
              x={grid.left + cell.column * grid.cellWidth + 1}
              y={grid.top + cell.row * grid.cellHeight + 1}
              width={grid.cellWidth - 2}
              height={grid.cellHeight - 2}
              fill="none"
              stroke={isChosen(cell) ? 'var(--app-accent)' : 'var(--app-text)'}
              strokeWidth={isChosen(cell) ? 3 : 1.5}
            />
          ))}
      </svg>
      <ScaleSwitch axis={colour} style={{ right: 4, bottom: 0 }} onScale={onScale} />
    </Walked>
  );
}

function gridOf({ x, y }: HeatMap, width: number, height: number): Grid {
  const longest = Math.max(...y.values.map((value) => fieldValue(value, y.field).length), 0);
  const left = 18 + Math.min(widestNames, Math.max(narrowestNames, longest * character + 8));
  return {
    left,
    top: margin.top,
    cellWidth: Math.min(widestCell, (width - left - margin.right) / Math.max(1, x.values.length)),
    cellHeight: Math.min(tallestCell, (height - margin.top - margin.bottom) / Math.max(1, y.values.length)),
  };
}

const placeKey = (column: number, row: number): string => `${column},${row}`;

/** The next cell that holds something, in a straight line. */
function nextCell(
  byPlace: ReadonlyMap<string, HeatCell>,
  from: HeatCell,
  [right, up]: readonly [number, number],
  { x, y }: HeatMap,
): HeatCell | undefined {
  let [column, row] = [from.column + right, from.row - up];
  while (column >= 0 && row >= 0 && column < x.values.length && row < y.values.length) {
    const cell = byPlace.get(placeKey(column, row));
    if (cell) return cell;
    column += right;
    row -= up;
  }
  return from;
}

interface CellsProps {
  readonly data: HeatMap;
  readonly grid: Grid;
  readonly brushed: ReadonlySet<string> | undefined;
}

const Cells = memo(({ data: { cells, metric }, grid, brushed }: CellsProps) => {
  const isDimmed = ({ ids }: HeatCell): boolean => brushed !== undefined && !ids.some((id) => brushed.has(id));
  const paths = new Map<string, string>();
  for (const cell of cells) {
    const step = Math.round(cell.share * colourSteps) / colourSteps;
    const key = `${rampColour(step)} ${isDimmed(cell) ? 0.2 : 1}`;
    const corner = `M${grid.left + cell.column * grid.cellWidth},${grid.top + cell.row * grid.cellHeight}`;
    paths.set(key, `${paths.get(key) ?? ''}${corner}h${grid.cellWidth}v${grid.cellHeight}h${-grid.cellWidth}z`);
  }
  const figureOf = ({ value }: HeatCell): string => formatMetric(value, metric.unit).replace(/ ?tokens\/s$/, '');
  const longest = cells.reduce((most, cell) => Math.max(most, figureOf(cell).length), 0);
  const hasRoom = grid.cellWidth >= longest * figureCharacter + 6 && grid.cellHeight >= figureHeight;
  const line = Math.min(grid.cellWidth, grid.cellHeight) > 8 ? 1 : 0;
  return (
    <g>
      {[...paths].map(([key, path]) => {
        const [fill, opacity] = key.split(' ');
        return <path key={key} d={path} fill={fill} opacity={opacity} stroke="var(--app-panel)" strokeWidth={line} />;
      })}
      {hasRoom &&
        cells.map((cell) => (
          <text
            key={placeKey(cell.column, cell.row)}
            x={grid.left + (cell.column + 0.5) * grid.cellWidth}
            y={grid.top + (cell.row + 0.5) * grid.cellHeight + 4}
            textAnchor="middle"
            fontSize={11}
            fill={isDimmed(cell) ? 'var(--app-text)' : inkOn(cell.share)}
          >
            {figureOf(cell)}
          </text>
        ))}
    </g>
  );
});

/** Names that would run into each other are left out evenly. */
const Names = memo(({ data: { x, y }, grid }: { readonly data: HeatMap; readonly grid: Grid }) => {
  const bottom = grid.top + y.values.length * grid.cellHeight;
  const widest = Math.max(...x.values.map((value) => fieldValue(value, x.field).length)) * character + 10;
  const everyX = Math.max(1, Math.ceil(widest / grid.cellWidth));
  const everyY = Math.max(1, Math.ceil(15 / grid.cellHeight));
  const most = Math.floor((grid.left - 26) / character);
  const short = (name: string): string => (name.length > most ? `${name.slice(0, most - 1)}…` : name);
  return (
    <g fontSize={11} fill="var(--chart-axis)">
      {x.values.map((value, i) =>
        i % everyX === 0 ? (
          <text key={value} x={grid.left + (i + 0.5) * grid.cellWidth} y={bottom + 16} textAnchor="middle">
            {fieldValue(value, x.field)}
          </text>
        ) : null,
      )}
      {y.values.map((value, i) =>
        i % everyY === 0 ? (
          <text key={value} x={grid.left - 8} y={grid.top + (i + 0.5) * grid.cellHeight + 4} textAnchor="end">
            {short(fieldValue(value, y.field))}
          </text>
        ) : null,
      )}
      <text x={grid.left + (x.values.length * grid.cellWidth) / 2} y={bottom + 36} textAnchor="middle" fontSize={12}>
        {fieldTitle(x.field)}
      </text>
      <text transform={`translate(11 ${(grid.top + bottom) / 2}) rotate(-90)`} textAnchor="middle" fontSize={12}>
        {fieldTitle(y.field)}
      </text>
    </g>
  );
});

const keyWidth = 12;
const tallestKey = 220;

/** The ramp with its figures. */
function Key({
  data: { colour },
  left,
  height,
}: {
  readonly data: HeatMap;
  readonly left: number;
  readonly height: number;
}) {
  const tall = Math.min(tallestKey, height - margin.top - margin.bottom);
  const steps = 48;
  const every = Math.max(1, Math.ceil((colour.ticks.length * 16) / tall));
  return (
    <g>
      {Array.from({ length: steps }, (_, i) => (
        <rect
          key={rampColour((i + 0.5) / steps)}
          x={left}
          y={margin.top + tall * (1 - (i + 1) / steps)}
          width={keyWidth}
          height={tall / steps + 0.5}
          fill={rampColour((i + 0.5) / steps)}
        />
      ))}
      {colour.ticks.map((tick, i) => {
        const share = shareOf(colour, tick);
        return i % every === 0 && share >= 0 && share <= 1 ? (
          <text
            key={tick}
            x={left + keyWidth + 5}
            y={margin.top + tall * (1 - share) + 4}
            fontSize={11}
            fill="var(--chart-axis)"
          >
            {axisTick(colour, tick).replace(/ ?tokens\/s$/, '')}
          </text>
        ) : null;
      })}
    </g>
  );
}

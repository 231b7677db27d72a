/** Every point as a row: the twin of all charts. Only the rows in view exist. */
import { Text } from '@mantine/core';
import { IconChevronDown, IconChevronUp } from '@tabler/icons-react';
import { useVirtualizer } from '@tanstack/react-virtual';
import { type KeyboardEvent, type ReactNode, useEffect, useMemo, useRef } from 'react';
import { formatMetric } from '../../src-main/contract/format.ts';
import type { Point } from '../../src-main/contract/metrics.ts';
import { Swatch } from '../charts/mark.tsx';
import { markOf } from '../series/marks.ts';
import { metricOf } from '../series/metric.ts';
import { type Column, sortPoints } from '../series/table.ts';
import { BrushChip } from './filter-bar.tsx';
import classes from './point-table.module.css';
import { useApp, useLevelNames, useRun, useView } from './use-app.ts';
import { useTablePoints } from './use-points.ts';

const rowHeight = 28;
const headHeight = 30;
const tableId = 'points';

export const focusTable = (): void => document.getElementById(tableId)?.focus();

interface TableColumn extends Column {
  readonly label: string;
  readonly pixels: number;
  readonly isFigure: boolean;
  readonly show: (point: Point) => ReactNode;
}

const words = (
  id: string,
  label: string,
  pixels: number,
  read: (point: Point) => string | number | undefined,
  isFigure = false,
): TableColumn => ({ id, label, pixels, read, isFigure, show: read });

const figure = (id: string, pixels: number): TableColumn => {
  const { label, unit, read } = metricOf(id);
  return {
    id,
    label,
    pixels,
    read,
    isFigure: true,
    show: (point) => {
      const value = read(point);
      return value === undefined ? '' : formatMetric(value, unit);
    },
  };
};

const columns: readonly TableColumn[] = [
  words('level', 'level', 168, (point) => point.config.level),
  words('phase', 'phase', 68, (point) => point.config.phase),
  words('hiddenDim', 'd', 56, (point) => point.config.hiddenDim, true),
  words('seqLen', 'tokens', 64, (point) => point.config.seqLen, true),
  words('batch', 'batch', 56, (point) => point.config.batch, true),
  figure('multiplierVsF32Mha', 110),
  figure('multiplierVsOwn16Bit', 120),
  figure('kvAllocatedBytes', 120),
  figure('relativeL2', 88),
  words('grade', 'grade', 104, (point) => point.error?.grade),
  figure('medianSeconds', 96),
  figure('p95Seconds', 88),
  figure('tokensPerSecond', 138),
  figure('rooflineFraction', 128),
  words('outcome', 'outcome', 84, (point) => point.outcome),
  words('notes', 'flags or reason', 260, (point) => point.reason ?? point.throughput?.flags.join(', ')),
];
const template = columns.map(({ pixels }) => `${pixels}px`).join(' ');
const totalWidth = columns.reduce((sum, { pixels }) => sum + pixels, 0);

export function PointTable() {
  const app = useApp();
  const points = useTablePoints();
  const total = useRun((run) => run.points.length);
  const sort = useView((view) => view.sort);
  const selected = useView((view) => view.selected);
  const levels = useLevelNames();
  const scroll = useRef<HTMLDivElement>(null);
  const rows = useMemo(() => {
    const column = columns.find(({ id }) => id === sort?.column);
    return column ? sortPoints(points, column, sort?.descending ?? false) : points;
  }, [points, sort]);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroll.current,
    estimateSize: () => rowHeight,
    overscan: 8,
    scrollPaddingStart: headHeight,
  });

  // Wherever a point was selected, its row comes into view.
  const active = selected.at(-1);
  const activeIndex = rows.findIndex(({ id }) => id === active);
  const { scrollToIndex } = virtual;
  useEffect(() => {
    if (active !== undefined && activeIndex >= 0) scrollToIndex(activeIndex);
  }, [active, activeIndex, scrollToIndex]);
  const visible = virtual.getVirtualItems();

  const move = (event: KeyboardEvent): void => {
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: 10,
      PageUp: -10,
      Home: -1e9,
      End: 1e9,
    };
    const by = steps[event.key];
    if (by === undefined || rows.length === 0) return;
    event.preventDefault();
    const next = Math.min(rows.length - 1, Math.max(0, activeIndex === -1 ? 0 : activeIndex + by));
    app.view.select(rows[next].id);
  };

  return (
    <div className={classes.frame}>
      {/* biome-ignore lint/a11y/useSemanticElements: a real table cannot be virtualised */}
      <div
        id={tableId}
        ref={scroll}
        className={classes.scroll}
        role="grid"
        aria-label="Points"
        aria-rowcount={rows.length + 1}
        aria-colcount={columns.length}
        aria-multiselectable="true"
        aria-activedescendant={visible.some(({ index }) => index === activeIndex) ? `row-${active}` : undefined}
        tabIndex={0}
        onKeyDown={move}
      >
        <div style={{ width: totalWidth, height: virtual.getTotalSize() + headHeight }} role="presentation">
          <Head />
          {visible.map((item) => {
            const point = rows[item.index];
            return (
              <Row
                key={point.id}
                point={point}
                index={item.index}
                top={item.start}
                levels={levels}
                isSelected={selected.includes(point.id)}
              />
            );
          })}
        </div>
        {rows.length === 0 && (
          <Text size="sm" c="var(--app-quiet)" className={classes.empty}>
            {total === 0
              ? 'Each point of a sweep becomes a row here, measured, skipped or failed.'
              : 'No point passes the filter above the charts.'}
          </Text>
        )}
      </div>
      <div className={classes.chip}>
        <BrushChip />
      </div>
    </div>
  );
}

function Head() {
  const app = useApp();
  const sort = useView((view) => view.sort);
  const sortBy = (column: string): void => {
    const descending = sort?.column === column && !sort.descending;
    const isThird = sort?.column === column && sort.descending;
    app.view.setState({ sort: isThird ? undefined : { column, descending } });
  };
  return (
    // biome-ignore lint/a11y/useFocusableInteractive: the grid holds the focus; its heads are buttons
    // biome-ignore lint/a11y/useSemanticElements: a real table cannot be virtualised
    <div className={classes.head} role="row" aria-rowindex={1} style={{ gridTemplateColumns: template }}>
      {columns.map(({ id, label, isFigure }) => {
        const isSorted = sort?.column === id;
        return (
          // biome-ignore lint/a11y/useFocusableInteractive: as above
          // biome-ignore lint/a11y/useSemanticElements: as above
          <div
            key={id}
            role="columnheader"
            aria-sort={isSorted ? (sort.descending ? 'descending' : 'ascending') : 'none'}
            className={isFigure ? classes.figure : undefined}
          >
            <button type="button" tabIndex={-1} onClick={() => sortBy(id)}>
              {label}
              {isSorted && (sort.descending ? <IconChevronDown size={12} /> : <IconChevronUp size={12} />)}
            </button>
          </div>
        );
      })}
    </div>
  );
}

interface RowProps {
  readonly point: Point;
  readonly index: number;
  readonly top: number;
  readonly levels: readonly string[];
  readonly isSelected: boolean;
}

function Row({ point, index, top, levels, isSelected }: RowProps) {
  const app = useApp();
  return (
    // biome-ignore lint/a11y/useFocusableInteractive: the grid holds the focus and moves the selection
    // biome-ignore lint/a11y/useKeyWithClickEvents: as above
    // biome-ignore lint/a11y/useSemanticElements: a real table cannot be virtualised
    <div
      id={`row-${point.id}`}
      role="row"
      aria-rowindex={index + 2}
      aria-selected={isSelected}
      className={classes.row}
      data-outcome={point.outcome}
      style={{ gridTemplateColumns: template, transform: `translateY(${top + headHeight}px)` }}
      onClick={(event) => app.view.select(point.id, event.shiftKey || event.ctrlKey || event.metaKey)}
    >
      {columns.map(({ id, isFigure, show }) => (
        // biome-ignore lint/a11y/useFocusableInteractive: as above
        // biome-ignore lint/a11y/useSemanticElements: as above
        <div key={id} role="gridcell" className={isFigure ? classes.figure : undefined}>
          {id === 'level' && (
            <Swatch mark={markOf(point.config.level, levels)} hollow={point.config.phase === 'prefill'} />
          )}
          <span>{show(point)}</span>
        </div>
      ))}
    </div>
  );
}

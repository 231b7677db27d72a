/** The frame of every chart: title, what it can be saved as, its twin in the table, and a drawing area of known size. */
import { ActionIcon, Group, Menu, Title, Tooltip } from '@mantine/core';
import { useElementSize, useMergedRef } from '@mantine/hooks';
import { IconDotsVertical, IconTable } from '@tabler/icons-react';
import { type ReactNode, useRef } from 'react';
import type { LevelMark } from '../series/marks.ts';
import classes from './chart-card.module.css';
import { download, toPng, toSvg } from './export.ts';
import { type Glyph, GlyphSwatch, Swatch } from './mark.tsx';

export interface LegendItem {
  readonly label: string;
  /** Neither mark nor glyph = a line in the pattern `dash`. */
  readonly mark?: LevelMark;
  readonly glyph?: Glyph;
  readonly dash?: string | undefined;
  readonly isHidden?: boolean;
  /** Shows or hides what the item names. */
  readonly onToggle?: () => void;
}

export interface ChartCardProps {
  readonly title: string;
  /** File name without its ending. */
  readonly fileName: string;
  /** One sentence for those who do not see the chart. */
  readonly description: string;
  readonly legend: readonly LegendItem[];
  /** Stands where the title would: choices that say what is drawn. */
  readonly heading?: ReactNode;
  readonly footer?: ReactNode;
  readonly toCsv: () => string;
  readonly onShowTable: () => void;
  /** Shown instead of the chart while there is nothing to draw. */
  readonly empty?: ReactNode;
  readonly children: (size: { readonly width: number; readonly height: number }) => ReactNode;
}

/** Axes alone take as much. */
const leastDrawn = { width: 160, height: 80 };

export function ChartCard(props: ChartCardProps) {
  const { ref: measure, width, height } = useElementSize<HTMLDivElement>();
  const area = useRef<HTMLDivElement>(null);
  const ref = useMergedRef(measure, area);
  const isDrawn = props.empty === undefined && width > leastDrawn.width && height > leastDrawn.height;
  const picture = (): string | undefined => {
    const legend = props.legend.filter(({ isHidden }) => !isHidden);
    return area.current?.querySelector('svg') ? toSvg(area.current, { title: props.title, legend }) : undefined;
  };
  const saveSvg = (): void => {
    const svg = picture();
    if (svg) download(`${props.fileName}.svg`, new Blob([svg], { type: 'image/svg+xml' }));
  };
  const savePng = async (): Promise<void> => {
    const svg = picture();
    if (svg) download(`${props.fileName}.png`, await toPng(svg));
  };
  const saveCsv = (): void => download(`${props.fileName}.csv`, new Blob([props.toCsv()], { type: 'text/csv' }));

  return (
    <section className={classes.card} aria-label={props.title}>
      <Group gap={8} justify="space-between" wrap="nowrap" className={classes.head}>
        {props.heading ?? (
          <Title order={2} size="sm" className={classes.title}>
            {props.title}
          </Title>
        )}
        <Group gap={4} wrap="nowrap" flex="none">
          <Tooltip label="The same points in the table">
            <ActionIcon variant="subtle" color="gray" aria-label="Show in the table" onClick={props.onShowTable}>
              <IconTable size={16} />
            </ActionIcon>
          </Tooltip>
          <Menu position="bottom-end" withinPortal>
            <Menu.Target>
              <ActionIcon variant="subtle" color="gray" aria-label={`Save ${props.title}`}>
                <IconDotsVertical size={16} />
              </ActionIcon>
            </Menu.Target>
            <Menu.Dropdown>
              <Menu.Label>Save this chart</Menu.Label>
              <Menu.Item disabled={!isDrawn} onClick={saveSvg}>
                SVG
              </Menu.Item>
              <Menu.Item disabled={!isDrawn} onClick={() => void savePng()}>
                PNG, twice the size
              </Menu.Item>
              <Menu.Item disabled={props.empty !== undefined} onClick={saveCsv}>
                CSV, the points shown
              </Menu.Item>
            </Menu.Dropdown>
          </Menu>
        </Group>
      </Group>
      <figure ref={ref} className={classes.area} aria-label={props.description}>
        {props.empty ?? (isDrawn ? props.children({ width, height }) : null)}
      </figure>
      <Legend items={props.legend} />
      {props.footer}
    </section>
  );
}

const Legend = ({ items }: { readonly items: readonly LegendItem[] }) => (
  <div className={classes.legend}>
    {items.map(({ label, mark, glyph, dash, isHidden = false, onToggle }) => {
      const content = (
        <>
          {mark ? <Swatch mark={mark} /> : glyph ? <GlyphSwatch glyph={glyph} /> : <DashSwatch dash={dash} />}
          {label}
        </>
      );
      return onToggle ? (
        <button
          key={label}
          type="button"
          className={classes.legendItem}
          aria-pressed={!isHidden}
          title={isHidden ? `Show ${label}` : `Hide ${label}`}
          onClick={onToggle}
        >
          {content}
        </button>
      ) : (
        <span key={label} className={classes.legendItem}>
          {content}
        </span>
      );
    })}
  </div>
);

const DashSwatch = ({ dash }: { readonly dash: string | undefined }) => (
  <svg width="28" height="8" aria-hidden="true" style={{ flex: 'none' }}>
    <line x1="0" x2="28" y1="4" y2="4" stroke="currentColor" strokeWidth="2" strokeDasharray={dash} />
  </svg>
);

/** The frame of every chart: title, what it can be saved as, its twin in the table, and a drawing area of known size. */
import { ActionIcon, Group, Menu, Text, Title, Tooltip } from '@mantine/core';
import { useElementSize, useMergedRef } from '@mantine/hooks';
import { IconDotsVertical, IconTable } from '@tabler/icons-react';
import { type ReactNode, useRef } from 'react';
import type { LevelMark } from '../series/marks.ts';
import classes from './chart-card.module.css';
import { download, toPng, toSvg } from './export.ts';
import { Swatch } from './mark.tsx';

export interface LegendItem {
  readonly label: string;
  readonly mark: LevelMark;
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

export function ChartCard(props: ChartCardProps) {
  const { ref: measure, width, height } = useElementSize<HTMLDivElement>();
  const area = useRef<HTMLDivElement>(null);
  const ref = useMergedRef(measure, area);
  const picture = (): string | undefined => {
    const chart = area.current?.querySelector('svg');
    return chart ? toSvg(chart, { title: props.title, legend: props.legend }) : undefined;
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
      <Group justify="space-between" wrap="nowrap" className={classes.head}>
        {props.heading ?? (
          <Title order={2} size="sm" className={classes.title}>
            {props.title}
          </Title>
        )}
        <Group gap={4} wrap="nowrap">
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
              <Menu.Item disabled={props.empty !== undefined} onClick={saveSvg}>
                SVG
              </Menu.Item>
              <Menu.Item disabled={props.empty !== undefined} onClick={() => void savePng()}>
                PNG, twice the size
              </Menu.Item>
              <Menu.Item disabled={props.empty !== undefined} onClick={saveCsv}>
                CSV, the points shown
              </Menu.Item>
            </Menu.Dropdown>
          </Menu>
        </Group>
      </Group>
      <div ref={ref} className={classes.area} role="img" aria-label={props.description}>
        {props.empty ?? (width > 0 && height > 0 ? props.children({ width, height }) : null)}
      </div>
      <div className={classes.legend} aria-hidden="true">
        {props.legend.map(({ label, mark }) => (
          <span key={label} className={classes.legendItem}>
            <Swatch mark={mark} />
            <Text span size="xs">
              {label}
            </Text>
          </span>
        ))}
      </div>
      {props.footer}
    </section>
  );
}

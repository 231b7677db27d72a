/** Every chart of the centre, in the order of its tabs. A new chart is one entry here and one file beside this. */
import type { ComponentType } from 'react';
import type { Point } from '../../src-main/contract/metrics.ts';
import { ComparePanel } from './compare-panel.tsx';
import { DevicesPanel } from './devices-panel.tsx';
import { DistributionPanel } from './distribution-panel.tsx';
import { HeatMapPanel } from './heat-map-panel.tsx';
import { LevelsPanel } from './levels-panel.tsx';
import { PlannerPanel } from './planner-panel.tsx';
import { RooflinePanel } from './roofline-panel.tsx';
import { ScalingPanel } from './scaling-panel.tsx';
import { TradeOffPanel } from './trade-off-panel.tsx';

export interface ChartPanelProps {
  /** Already filtered. */
  readonly points: readonly Point[];
}

export const charts: readonly {
  readonly id: string;
  readonly title: string;
  readonly Chart: ComponentType<ChartPanelProps>;
}[] = [
  { id: 'trade-off', title: 'Trade-off', Chart: TradeOffPanel },
  { id: 'levels', title: 'Levels', Chart: LevelsPanel },
  { id: 'scaling', title: 'Scaling', Chart: ScalingPanel },
  { id: 'roofline', title: 'Roofline', Chart: RooflinePanel },
  { id: 'heat-map', title: 'Heat map', Chart: HeatMapPanel },
  { id: 'distribution', title: 'Latency', Chart: DistributionPanel },
  { id: 'compare', title: 'Compare', Chart: ComparePanel },
  { id: 'devices', title: 'Devices', Chart: DevicesPanel },
  { id: 'planner', title: 'Planner', Chart: PlannerPanel },
];

/** What the inspector is made of: titled sections of named figures. */
import { Title } from '@mantine/core';
import type { ReactNode } from 'react';
import classes from './inspector.module.css';

interface SectionProps {
  readonly title: string;
  readonly aside?: ReactNode;
  readonly children: ReactNode;
}

export const Section = ({ title, aside, children }: SectionProps) => (
  <section className={classes.section} aria-label={title}>
    <div className={classes.sectionHead}>
      <Title order={3} size="xs">
        {title}
      </Title>
      {aside}
    </div>
    {children}
  </section>
);

export const Facts = ({ facts }: { readonly facts: readonly (readonly [name: string, value: string])[] }) => (
  <dl className={classes.facts}>
    {facts.map(([name, value]) => (
      <div key={name}>
        <dt>{name}</dt>
        <dd>{value}</dd>
      </div>
    ))}
  </dl>
);

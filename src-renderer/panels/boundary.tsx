/** A part of the window that cannot be drawn says so in its place; the rest of the window, and the sweep, go on. */
import { Button, Text } from '@mantine/core';
import { Component, type ReactNode } from 'react';
import classes from './charts-panel.module.css';

interface BoundaryProps {
  /** What is drawn in it, as the sentence names it. */
  readonly of: string;
  readonly children: ReactNode;
}

export class Boundary extends Component<BoundaryProps, { readonly fault?: Error | undefined }> {
  override state: { readonly fault?: Error | undefined } = {};

  static getDerivedStateFromError(fault: Error) {
    return { fault };
  }

  override render(): ReactNode {
    const { of, children } = this.props;
    const { fault } = this.state;
    if (fault === undefined) return children;
    return (
      <div className={classes.empty} role="alert">
        <Text fw={600} c="var(--app-text)">
          {`A fault of FastMQA: ${of} cannot be drawn`}
        </Text>
        <Text size="sm" maw={420}>
          {`${fault.message}. What was measured is saved.`}
        </Text>
        <Button size="xs" variant="default" onClick={() => this.setState({ fault: undefined })}>
          Draw again
        </Button>
      </div>
    );
  }
}

import "./style/site.css";
import { element } from "./element";
import { Playground } from "./playground";

new Playground(element("playground", HTMLElement));
